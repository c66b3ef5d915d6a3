// Rollout viewer: one record at a time, tokens coloured by the credit they received.
"use strict";
(() => {
  const { byId, html } = dom;
  const { arms, runs } = report;
  // What became of a failed or right completion: words, and whether that is good.
  const STATUSES = {
    accepted: ["repair accepted", "yes"],
    surplus: ["accepted, but not the best repair", ""],
    rejected: ["repair rejected by the audit", "no"],
    undecided: ["no verdict of the auditor", ""],
    unrepaired: ["no repair is right", "no"],
    no_anchor: ["no anchor: nothing to repair with", "no"],
    right: ["right", "yes"],
  };
  const FILTERS = [
    ["all", "all records", () => true],
    ["hit", "gate starts in the wrong step", (r) => known(r) && r.gate_first_step === r.oracle_first_error],
    ["miss", "gate starts elsewhere", (r) => known(r) && r.gate_first_step !== r.oracle_first_error],
    ["hacked", "repair right in its answer alone", (r) => r.repaired && r.reward_repaired >= 0.5 && r.repaired_first_error >= 0 && r.repaired_first_error !== null],
    ...Object.entries(STATUSES).map(([status, [words]]) => [status, words, (r) => r.status === status]),
  ];
  const known = (r) => Number.isInteger(r.gate_first_step) && r.gate_first_step >= 0 && Number.isInteger(r.oracle_first_error) && r.oracle_first_error >= 0;
  const firstRun = (test) => runs.findIndex((run) => run.records.some(test));
  // Pairs of failed and repaired say most: start with a run that has them.
  const state = { run: firstRun((r) => r.repaired) >= 0 ? firstRun((r) => r.repaired) : firstRun(() => true), filter: "all", at: 0, records: [] };
  let strongest = 1;

  // --- Tokens
  // Lines as the verifier sees steps: a token that is the separator (or, for line breaks, holds it) ends its line.
  const linesOf = (side, separator) => {
    const ends = separator.trim() ? (t) => t.trim() === separator.trim() : (t) => t.includes(separator);
    const lines = [];
    let current = null;
    side.tokens.forEach((token, i) => {
      if (!current) lines.push((current = { step: side.step ? side.step[i] : lines.length, tokens: [] }));
      current.tokens.push(i);
      if (ends(token)) current = null;
    });
    return lines;
  };
  // A special token decodes to nothing; the last one is the end of the sequence.
  const visibleText = (token, last) => (token === "" ? (last ? "⟨end⟩" : "∅") : token.replace(/\r/g, "␍").replace(/\n/g, "⏎").replace(/\t/g, "⇥"));

  const tokenNode = (side, i) => {
    const gated = side.gate ? side.gate[i] : 1;
    const advantage = side.advantage ? side.advantage[i] : 0;
    const edited = side.edit ? side.edit[i] >= 0 : false;
    const classes = ["tok"];
    if (gated && advantage) classes.push(advantage < 0 ? "neg" : "pos");
    else if (gated) classes.push("zero");
    if (edited && !gated) classes.push("edit");
    if (/^<[^<>]*>$/.test(side.tokens[i]) || !side.tokens[i].trim()) classes.push("mute");
    const alpha = 0.14 + 0.5 * Math.min(1, Math.abs(advantage) / strongest);
    return html("span", { class: classes.join(" "), "--a": alpha.toFixed(3), "data-i": i, "data-edit": edited ? side.edit[i] : null, text: visibleText(side.tokens[i], i === side.tokens.length - 1) });
  };

  const margin = (line, marks) => html("div", { class: "margin" }, [
    ...marks.filter(([step]) => step === line.step).map(([, kind, sign, words]) => html("span", { class: "mark " + kind, title: words, text: sign })),
    String(line.step ?? "")]);

  const column = (record, name, heading, rows) => {
    const side = record[name];
    const lines = linesOf(side, record.separator);
    // Word-level vocabularies carry no blanks of their own; without a gap the words would run together.
    const spaced = !side.tokens.some((t) => /\s/.test(t) && t.trim()) && !side.tokens.includes(" ");
    const marks = name === "repaired" ? [[record.repaired_first_error, "oracle", "◆", "still wrong (oracle)"]] : [[record.oracle_first_error, "oracle", "◆", "first wrong step (oracle)"], [record.gate_first_step, "gate", "▶", "first gated step"]];
    const body = lines.map((line) => html("div", { class: "line" + (marks.some(([step]) => step === line.step && step >= 0) ? " marked" : "") }, [
      margin(line, marks), html("div", { class: "tokens" + (spaced ? " spaced" : "") }, line.tokens.map((i) => tokenNode(side, i)))]));
    while (body.length < rows) body.push(html("div", { class: "line empty" }));
    const node = html("div", { class: "side " + name, "--rows": rows + 1 }, [heading, ...body]);
    node.style.gridRow = `1 / span ${rows + 1}`;
    node.addEventListener("pointerover", (event) => hover(event, side));
    node.addEventListener("pointerleave", unhover);
    return node;
  };

  const number = (value, digits) => (value === null || value === undefined ? "–" : (value > 0 ? "+" : value < 0 ? "−" : "") + Math.abs(value).toFixed(digits));
  const hover = (event, side) => {
    const node = event.target.closest(".tok");
    unhover();
    if (!node) return;
    const i = Number(node.dataset.i), rows = [];
    const add = (term, value) => rows.push(html("dt", { text: term }), html("dd", { text: value }));
    add("position", side.step ? `${i}, step ${side.step[i]}` : String(i));
    if (side.gate) add("gate", side.gate[i] ? "open: trained" : "closed: not trained");
    if (side.edit && side.edit[i] >= 0) add("edit", "number " + side.edit[i]);
    if (side.advantage) add("advantage", number(side.advantage[i], 3));
    if (side.logprob && side.logprob[i] !== null) add("probability", `${Math.exp(side.logprob[i]).toPrecision(3)}  (log ${number(side.logprob[i], 3)})`);
    if (side.ratio) add("probability ratio", side.ratio[i] === null ? "–" : side.ratio[i].toFixed(4));
    if (node.dataset.edit) for (const other of byId("sheet").querySelectorAll(`[data-edit="${node.dataset.edit}"]`)) other.classList.add("linked");
    dom.showTip(event, [html("code", { text: JSON.stringify(side.tokens[i]) }), html("dl", {}, rows)]);
  };
  const unhover = () => {
    for (const node of byId("sheet").querySelectorAll(".linked")) node.classList.remove("linked");
    dom.hideTip();
  };

  // --- One record
  const badge = (text, kind) => html("span", { class: "badge" + (kind ? " " + kind : ""), text });
  const reward = (value) => (value === null || value === undefined ? null : badge(`reward ${value.toFixed(2)}`, value >= 0.5 ? "yes" : "no"));
  const stepName = (step) => (step === null || step === undefined ? "unknown" : step < 0 ? "none" : `step ${step}`);
  const show = (record) => {
    const pair = record.kind === "pair" && record.repaired;
    const facts = [];
    const fact = (term, ...children) => facts.push(html("dt", { text: term }), html("dd", {}, children));
    fact("Problem", html("span", { class: "text", text: record.problem }));
    fact("Gold answer", html("span", { class: "text", text: record.gold }));
    if (record.status in STATUSES) fact("Status", badge(...STATUSES[record.status]), record.reason ?? record.audit?.reason ?? "");
    else if (record.audit) fact("Audit", badge(record.audit.accepted ? "accepted" : "rejected", record.audit.accepted ? "yes" : "no"), record.audit.reason);
    if (record.gate_first_step !== null || record.oracle_first_error !== null) {
      const verdict = known(record) ? (record.gate_first_step === record.oracle_first_error ? badge("same step", "yes") : badge("different steps", "no")) : "";
      fact("First error", verdict, (record.gate_first_step !== null ? `gate: ${stepName(record.gate_first_step)}, ` : "") + `oracle: ${stepName(record.oracle_first_error)}`);
    }
    if (record.repaired_first_error !== null && record.repaired_first_error >= 0) fact("Repair", badge(record.reward_repaired >= 0.5 ? "right answer, wrong step" : "wrong", "no"), `oracle: ${stepName(record.repaired_first_error)}`);
    const heading = (text, value) => html("h3", {}, [text, reward(value)]);
    const rows = Math.max(...[record.failed, record.repaired].filter(Boolean).map((s) => linesOf(s, record.separator).length));
    const sides = [column(record, "failed", heading(pair ? "Failed" : "Completion", record.reward_failed), rows)];
    if (pair) sides.push(column(record, "repaired", heading(record.reward_repaired >= 0.5 ? "Repaired" : "Repair", record.reward_repaired), rows));
    const extra = record.anchor ? [html("details", {}, [html("summary", { text: "Anchor: the correct sample that the repair saw" }), html("pre", { text: record.anchor })])] : [];
    byId("sheet").replaceChildren(html("dl", { class: "facts" }, facts), html("div", { class: "sides" + (pair ? "" : " single") }, sides), ...extra);
  };

  // --- Navigation
  const updates = () => [...new Set(state.records.map((r) => r.update))];
  const options = (select, pairs, value) => {
    select.replaceChildren(...pairs.map(([key, text]) => html("option", { value: key, text })));
    select.value = value;
  };
  const render = () => {
    unhover();
    const record = state.records[state.at];
    const all = updates();
    const here = record ? state.records.map((r, i) => [i, r]).filter(([, r]) => r.update === record.update) : [];
    options(byId("update"), all.map((u) => [u, u]), record ? record.update : "");
    options(byId("record"), here.map(([i], n) => [i, `${n + 1} of ${here.length}`]), state.at);
    byId("record-back").disabled = state.at <= 0;
    byId("record-on").disabled = state.at >= state.records.length - 1;
    byId("update-back").disabled = !record || record.update === all[0];
    byId("update-on").disabled = !record || record.update === all[all.length - 1];
    if (record) show(record);
    else byId("sheet").replaceChildren(html("p", { class: "note", text: "No record of this run is of that kind." }));
    const run = runs[state.run];
    byId("rollouts-note").textContent = (state.records.length === run.records.length ? "" : `${state.records.length} of `)
      + `${run.records.length} record${run.records.length === 1 ? "" : "s"}` + (run.records.length < run.records_logged ? `, spread evenly over the ${run.records_logged} that were logged.` : ".");
  };
  const select = (near) => {
    const run = runs[state.run];
    const test = FILTERS.find(([key]) => key === state.filter)[2];
    state.records = run.records.filter(test);
    strongest = Math.max(1e-6, ...run.records.flatMap((r) => [r.failed, r.repaired].filter(Boolean).map((s) => Math.max(0, ...(s.advantage || []).map(Math.abs)))));
    const found = state.records.findIndex((r) => r.update >= near);
    state.at = found < 0 ? Math.max(0, state.records.length - 1) : found;
    render();
  };
  const moveRecord = (by) => {
    const next = state.at + by;
    if (next >= 0 && next < state.records.length) { state.at = next; render(); }
  };
  const moveUpdate = (by) => {
    const all = updates(), record = state.records[state.at];
    const wanted = record && all[all.indexOf(record.update) + by];
    if (wanted !== undefined && record) { state.at = state.records.findIndex((r) => r.update === wanted); render(); }
  };

  const key = () => {
    const ramp = (kind) => html("span", { class: "ramp" }, [0.2, 0.4, 0.6, 0.8, 1].map((x) => { const i = html("i"); i.style.background = `rgb(var(--${kind}) / ${(0.14 + 0.5 * x).toFixed(2)})`; return i; }));
    byId("credit-key").replaceChildren(
      html("span", {}, [ramp("neg"), "pushed down, by |advantage|"]), html("span", {}, [ramp("pos"), "pushed up"]),
      html("span", {}, [html("span", { class: "tok edit", text: "edit" }), "changed, but outside the gate"]),
      html("span", { class: "margin" }, [html("span", { class: "mark gate", text: "▶" }), "first gated step"]),
      html("span", { class: "margin" }, [html("span", { class: "mark oracle", text: "◆" }), "first wrong step (oracle)"]));
  };

  const start = () => {
    if (state.run < 0) {
      byId("viewer").hidden = true;
      byId("no-rollouts").hidden = false;
      return;
    }
    key();
    byId("run").replaceChildren(...arms.map((arm) => html("optgroup", { label: arm.label }, arm.runs.filter((i) => runs[i].records.length).map((i) => html("option", { value: i, text: `${runs[i].name} (seed ${runs[i].seed ?? "?"})` })))));
    byId("run").value = state.run;
    options(byId("filter"), FILTERS.filter(([, , test]) => runs.some((run) => run.records.some(test))), "all");
    byId("run").addEventListener("change", (e) => { const now = state.records[state.at]; state.run = Number(e.target.value); select(now ? now.update : 0); });
    byId("filter").addEventListener("change", (e) => { const now = state.records[state.at]; state.filter = e.target.value; select(now ? now.update : 0); });
    byId("update").addEventListener("change", (e) => { state.at = state.records.findIndex((r) => r.update === Number(e.target.value)); render(); });
    byId("record").addEventListener("change", (e) => { state.at = Number(e.target.value); render(); });
    byId("record-back").addEventListener("click", () => moveRecord(-1));
    byId("record-on").addEventListener("click", () => moveRecord(1));
    byId("update-back").addEventListener("click", () => moveUpdate(-1));
    byId("update-on").addEventListener("click", () => moveUpdate(1));
    // Left and right work wherever the viewer is on screen; up and down scroll unless the viewer has the focus.
    addEventListener("keydown", (event) => {
      if (event.altKey || event.ctrlKey || event.metaKey || event.target.closest?.("select, input, textarea")) return;
      const box = byId("viewer").getBoundingClientRect();
      if (box.bottom < 0 || box.top > innerHeight) return;
      const inside = byId("viewer").contains(document.activeElement);
      if (event.key === "ArrowLeft") moveRecord(-1);
      else if (event.key === "ArrowRight") moveRecord(1);
      else if (inside && event.key === "ArrowUp") moveUpdate(-1);
      else if (inside && event.key === "ArrowDown") moveUpdate(1);
      else return;
      event.preventDefault();
    });
    select(0);
  };
  start();
})();
