// Notes on the marks of plots, by pointer and by touch; and open tables when the page is printed.
(() => {
  const tip = document.getElementById("tip");
  for (const title of document.querySelectorAll(".mark > title")) {
    title.parentNode.setAttribute("data-note", title.textContent);
    title.remove();
  }
  const noteOf = (target) => target.closest && target.closest("[data-note]");
  function show(event) {
    const mark = noteOf(event.target);
    tip.hidden = !mark;
    if (!mark) return;
    tip.textContent = mark.getAttribute("data-note");
    const width = document.documentElement.clientWidth, size = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(8, Math.min(event.clientX + 14, width - size.width - 8))}px`;
    tip.style.top = `${event.clientY > size.height + 24 ? event.clientY - size.height - 14 : event.clientY + 18}px`;
  }
  for (const kind of ["pointerover", "pointerdown"]) document.addEventListener(kind, show);

  let closed = [];
  window.addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("#report details:not([open])")];
    for (const one of closed) one.open = true;
  });
  window.addEventListener("afterprint", () => { for (const one of closed) one.open = false; });
})();
