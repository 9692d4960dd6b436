// A page that is written again reloads itself, as long as its reader wants it.
(() => {
  const box = document.getElementById("reload");
  if (!box) return;
  const key = "stepcredit reload";
  try { box.checked = sessionStorage.getItem(key) === "yes"; } catch { /* it is asked for again */ }
  document.getElementById("reload-control").hidden = false;
  box.addEventListener("change", () => {
    try { sessionStorage.setItem(key, box.checked ? "yes" : "no"); } catch { /* not kept */ }
  });
  setInterval(() => { if (box.checked) location.reload(); }, 10000);
})();
