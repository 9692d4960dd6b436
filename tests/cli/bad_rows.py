"""Rows that break a rule, and what is said of each after the name of the file."""

from __future__ import annotations

GOOD = b'{"group": 1, "length": 2, "outcome": 1.0}\n'
STEPS = b'{"group": 1, "step_ends": [1, 3], "step_scores": [0.5, 0.25]'

ROWS: dict[str, tuple[bytes, str]] = {
    "nan": (b'{"group": 1, "length": 2, "outcome": NaN}', "1: outcome: NaN is not a finite number"),
    "infinity": (
        b'{"group": 1, "token_scores": [0.5, -Infinity]}',
        "1: token_scores: -Infinity at index 1 is not a finite number",
    ),
    "overflow": (
        b'{"group": 1, "token_scores": [1e400]}',
        "1: token_scores: Infinity at index 0 is not a finite number",
    ),
    "beyond float32": (
        b'{"group": 1, "length": 1, "outcome": 1e39}',
        "1: outcome: 1e+39 is too large for float32",
    ),
    "huge integer": (
        b'{"group": 1, "token_scores": [NaN, 1' + b"0" * 400 + b"]}",
        "1: token_scores: NaN at index 0 is not a finite number",
    ),
    "nan in a signal": (
        b'{"group": 1, "signals": {"judge": {"scores": [NaN]}}}',
        "1: signals.judge.scores: NaN at index 0 is not a finite number",
    ),
    "nan in log-probs": (
        b'{"group": 1, "teacher_logprobs": [-0.5, NaN]}',
        "1: teacher_logprobs: NaN at index 1 is not a finite number",
    ),
    "length disagrees": (
        b'{"group": 1, "length": 3, "token_scores": [0.5, 0.5]}',
        "1: token_scores: 2 values, but the response has 3 tokens",
    ),
    "token ids disagree": (
        b'{"group": 1, "token_ids": [7, 8, 9], "tokens": ["a", "b"]}',
        "1: tokens: 2 values, but the response has 3 tokens",
    ),
    "log-probs disagree": (
        b'{"group": 1, "student_logprobs": [-1, -2], "teacher_logprobs": [-1]}',
        "1: teacher_logprobs: 1 values, but the response has 2 tokens",
    ),
    "length and mask disagree": (
        b'{"group": 1, "length": 3, "loss_mask": [1, 0, 1]}',
        "1: length: 3, but loss_mask trains 2",
    ),
    "stale advantages": (
        b'{"group": 1, "length": 3, "advantages": [0.5]}',
        "1: advantages: 1 values, but the response has 3 tokens",
    ),
    "scores and ends": (
        b'{"group": 1, "step_ends": [1, 3], "step_scores": [0.5]}',
        "1: step_scores: 1 scores, but 2 step ends",
    ),
    "ends out of order": (
        b'{"group": 1, "step_ends": [3, 1], "step_scores": [0.5, 0.5]}',
        "1: step_ends: 1 follows 3: ends must increase",
    ),
    "ends repeat": (
        b'{"group": 1, "step_ends": [1, 1], "step_scores": [0.5, 0.5]}',
        "1: step_ends: 1 follows 1: ends must increase",
    ),
    "end below zero": (
        b'{"group": 1, "step_ends": [-1, 1], "step_scores": [0.5, 0.5]}',
        "1: step_ends: -1 is before the first token",
    ),
    "ends past the end": (
        b'{"group": 1, "length": 3, "step_ends": [1, 3], "step_scores": [0.5, 0.5]}',
        "1: step_ends: last step ends at 3, but the response's last token is 2",
    ),
    "ends before the end": (
        b'{"group": 1, "length": 5, "step_ends": [1, 3], "step_scores": [0.5, 0.5]}',
        "1: step_ends: last step ends at 3, but the response's last token is 4",
    ),
    "ends far past the end": (
        b'{"group": 1, "step_ends": [1000000000000], "step_scores": [0.5]}',
        "1: step_ends: 1000000000001 tokens, expected at most 100000000",
    ),
    "no steps": (
        b'{"group": 1, "length": 2, "step_ends": [], "step_scores": []}',
        "1: step_ends: expected at least one step",
    ),
    "no tokens": (
        b'{"group": 1, "length": 0, "outcome": 1}',
        "1: length: a response needs at least one trained token",
    ),
    "no token scores": (
        b'{"group": 1, "token_scores": []}',
        "1: token_scores: a response needs at least one trained token",
    ),
    "no trained token": (
        b'{"group": 1, "loss_mask": [0, 0]}',
        "1: loss_mask: a response needs at least one trained token",
    ),
    "a mask shorter than the ids": (
        b'{"group": 1, "token_ids": [1, 2, 3], "loss_mask": [1, 0]}',
        "1: loss_mask: 2 values, but token_ids has 3",
    ),
    "a mask longer than the tokens": (
        b'{"group": 1, "length": 2, "tokens": ["a", "b"], "loss_mask": [1, 1, 1]}',
        "1: loss_mask: 3 values, but tokens has 2",
    ),
    "utf-32": (
        '{"group": 1, "length": 2}'.encode("utf-32"),
        "1: is UTF-32, expected UTF-8",
    ),
    "mask of twos": (b'{"group": 1, "loss_mask": [1, 2]}', "1: loss_mask: expected only 0 and 1"),
    "length unknown": (
        b'{"group": 1, "outcome": 1}',
        "1: length: missing, and no other field implies it",
    ),
    "half-known outcomes": (
        GOOD + GOOD + b'{"group": "1", "length": 2, "outcome": null}',
        "3: outcome: unknown, but known for others of its group",
    ),
    "half-known formats": (
        b'{"group": 1, "length": 2}\n{"group": 1, "length": 2, "format": 1}',
        "1: format: unknown, but known for others of its group",
    ),
    "half-known outcomes far apart": (
        b'{"group": 1, "length": 2}\n{"group": 2, "length": 1}\n' + GOOD,
        "1: outcome: unknown, but known for others of its group",
    ),
    "two kinds in a group": (
        STEPS + b'}\n{"group": 1, "token_scores": [1]}',
        "2: token_scores: a score per token, but line 1 of its group has a score per step",
    ),
    "two kinds of a signal": (
        b'{"group": 1, "signals": {"j": {"scores": [1]}}}\n'
        b'{"group": 1, "signals": {"j": {"advantages": [1]}}}',
        "2: signals.j: advantages, but line 1 of its group has a score per token",
    ),
    "both process signals": (
        STEPS + b', "token_scores": [1, 1, 1, 1]}',
        "1: token_scores: is given with step_scores: expected only one of them",
    ),
    "scores without ends": (
        b'{"group": 1, "length": 2, "step_scores": [1]}',
        "1: step_ends: missing, and step_scores need it",
    ),
    "group missing": (b'{"length": 2}', "1: group: missing"),
    "group is true": (
        b'{"group": true, "length": 2}',
        "1: group: expected a string or an integer, got true",
    ),
    "group is a fraction": (
        b'{"group": 1.5, "length": 2}',
        "1: group: expected a string or an integer, got 1.5",
    ),
    "bool for a number": (
        b'{"group": 1, "length": 2, "outcome": true}',
        "1: outcome: expected a number or null, got true",
    ),
    "string for a number": (
        b'{"group": 1, "length": 2, "outcome": "1"}',
        '1: outcome: expected a number or null, got "1"',
    ),
    "bool among numbers": (
        b'{"group": 1, "token_scores": [0.5, true]}',
        "1: token_scores: expected numbers, got true at index 1",
    ),
    "string among numbers": (
        b'{"group": 1, "token_scores": ["x"]}',
        '1: token_scores: expected numbers, got "x" at index 0',
    ),
    "null among numbers": (
        b'{"group": 1, "token_scores": [null]}',
        "1: token_scores: expected numbers, got null at index 0",
    ),
    "number for a list": (
        b'{"group": 1, "token_scores": 3}',
        "1: token_scores: expected a list of numbers, got 3",
    ),
    "fraction for an end": (
        b'{"group": 1, "step_ends": [1.0], "step_scores": [1]}',
        "1: step_ends: expected integers, got 1.0 at index 0",
    ),
    "bool for a length": (
        b'{"group": 1, "length": true}',
        "1: length: expected a whole number, got true",
    ),
    "number for a flag": (
        b'{"group": 1, "length": 1, "format_ok": 1}',
        "1: format_ok: expected true or false, got 1",
    ),
    "number for a text": (
        b'{"group": 1, "length": 1, "text": 7}',
        "1: text: expected a string, got 7",
    ),
    "number for a token": (
        b'{"group": 1, "tokens": ["a", 7]}',
        "1: tokens: expected strings, got 7 at index 1",
    ),
    "signals are a list": (
        b'{"group": 1, "length": 1, "signals": [1]}',
        "1: signals: expected an object, got [1]",
    ),
    "signal is a list": (
        b'{"group": 1, "length": 1, "signals": {"judge": [1]}}',
        "1: signals.judge: expected an object, got [1]",
    ),
    "signal without scores": (
        b'{"group": 1, "length": 1, "signals": {"judge": {"ends": [0]}}}',
        "1: signals.judge: expected either scores or advantages",
    ),
    "signal with both": (
        b'{"group": 1, "length": 1, "signals": {"judge": {"scores": [1], "advantages": [1]}}}',
        "1: signals.judge: expected either scores or advantages",
    ),
    "advantages with ends": (
        b'{"group": 1, "length": 1, "signals": {"judge": {"advantages": [1], "ends": [0]}}}',
        "1: signals.judge.ends: advantages are one per token: expected no ends",
    ),
    "signal too short": (
        b'{"group": 1, "length": 2, "signals": {"judge": {"scores": [1]}}}',
        "1: signals.judge.scores: 1 values, but the response has 2 tokens",
    ),
    "signal's ends": (
        b'{"group": 1, "length": 2, "signals": {"judge": {"scores": [1], "ends": [0]}}}',
        "1: signals.judge.ends: last step ends at 0, but the response's last token is 1",
    ),
    "signal's scores without ends": (
        b'{"group": 1, "length": 2, "signals": {"judge": {"scores": [1], "ends": []}}}',
        "1: signals.judge.ends: expected at least one step",
    ),
    "signal's ends without scores": (
        b'{"group": 1, "length": 2, "signals": {"judge": {"scores": [], "ends": [1]}}}',
        "1: signals.judge.scores: 0 scores, but 1 step ends",
    ),
    "signal named outcome": (
        b'{"group": 1, "length": 1, "signals": {"outcome": {"scores": [1]}}}',
        "1: signals.outcome: this name is taken: a process stream needs another",
    ),
    "signal named process": (
        b'{"group": 1, "token_scores": [1], "signals": {"process": {"scores": [1]}}}',
        "1: signals.process: this name is taken: a process stream needs another",
    ),
    "a list for a row": (b"[1, 2]", "1: expected an object, got [1, 2]"),
    "a number for a row": (b"17", "1: expected an object, got 17"),
    "truncated": (
        GOOD + b'{"group": 1, "length": 2, "outc',
        "2: is not JSON: Unterminated string starting at at column 27",
    ),
    "not json": (b"{group: 1}", "1: is not JSON: Expecting property name enclosed in double "
                 "quotes at column 2"),
    "nested": (b'{"group": 1, "x": ' + b"[" * 9999 + b"]" * 9999 + b"}",
               "1: is nested too deeply: more than 100 levels"),
    "nested in a row with advantages": (
        GOOD[:-2] + b', "advantages": [1, 1], "x": ' + b"[" * 1000 + b"]" * 1000 + b"}",
        "1: is nested too deeply: more than 100 levels",
    ),
    "nested by a level too many": (
        GOOD[:-2] + b', "x": ' + b'{"a": [' * 50 + b"]}" * 50 + b"}",
        "1: is nested too deeply: more than 100 levels",
    ),
    "half a character in a label": (
        b'{"group": "\\ud800", "length": 2}',
        "1: is not Unicode: \\ud800 in a string is half a character",
    ),
    "half a character in a name": (
        GOOD + b'{"group": 1, "length": 2, "outcome": 1, "\\udcff": [NaN]}',
        "2: is not Unicode: \\udcff in a string is half a character",
    ),
    "not utf-8": (
        GOOD + b'{"group": "\xff", "length": 2}',
        "2: is not UTF-8: byte 0xff at column 12",
    ),
    "a name twice": (
        b'{"group": 1, "group": 2, "length": 1}',
        "1: group: is given twice in one object, so one of the two would be lost",
    ),
    "a name twice, once with an escape": (
        b'{"group": 1, "length": 1, "\\u006cength" : 2}',
        "1: length: is given twice in one object, so one of the two would be lost",
    ),
    "a name twice in a carried field": (
        GOOD + b'{"group": 1, "length": 1, "meta": [{"a": ": {", "b": 1, "b": 2}]}',
        "2: b: is given twice in one object, so one of the two would be lost",
    ),
    "utf-16": (
        '{"group": 1, "length": 2}'.encode("utf-16"),
        "1: is UTF-16, expected UTF-8",
    ),
    "utf-16 without a byte order mark": (
        '{"group": 1, "length": 2}'.encode("utf-16-le"),
        "1: holds a NUL byte at column 2: expected JSON in UTF-8",
    ),
    "a NUL byte": (
        GOOD + b'{"group": 1, \x00"length": 2}',
        "2: holds a NUL byte at column 14: expected JSON in UTF-8",
    ),
    "a second byte order mark": (
        b"\xef\xbb\xbf" + GOOD + b"\xef\xbb\xbf" + GOOD,
        "2: is not JSON: Expecting value at column 1",
    ),
    "a length that no list has": (
        b'{"group": 1, "length": 20000000}\n{"group": 1, "length": 20000000}',
        "1: length: 20000000 tokens: its group's table is 2 rows of that many, which makes "
        "40000000 tokens that no list in the file holds, more than 33554432: set "
        "STEPCREDIT_MAX_GROUP_TOKENS to allow more",
    ),
    "one long row among many": (
        b'{"group": 1, "length": 100000}\n' + b'{"group": 1, "token_scores": [1]}\n' * 999,
        "1: length: 100000 tokens: its group's table is 1000 rows of that many, which makes "
        "99999001 tokens that no list in the file holds, more than 33554432: set "
        "STEPCREDIT_MAX_GROUP_TOKENS to allow more",
    ),
    "faults are counted": (
        GOOD + b'{"group": 1}\n\n[]\n{"group": 2, "length": true}',
        "2: length: missing, and no other field implies it (and 2 more faults)",
    ),
    "a newline in a name": (
        b'{"group": 1, "length": 1, "signals": {"a\\nb": 1}}',
        "1: signals.a\\nb: expected an object, got 1",
    ),
}  # fmt: skip
