// Summary, accuracy and process sections: what is shown, and the controls above it.
"use strict";
(() => {
  const { byId, html } = dom;
  const { arms, runs } = report;
  const AXES = [
    ["updates", "updates", "updates", (x) => String(x)],
    ["tokens", "generated tokens", "generated tokens (policy, repairs and audits)", (x) => format.compact(x) + " tokens"],
    ["seconds", "seconds", "seconds", format.duration],
  ];
  const PANELS = [
    ["reward/mean", "Reward", "mean over sampled completions"],
    ["process/repair_success", "Repair success", "share of the failures with an anchor that got an accepted repair"],
    ["process/no_anchor_frac", "No anchor", "share of all failures that nothing could repair: no right sample in the group"],
    ["process/audit_reject_frac", "Audit rejections", "share of right repairs judged dishonest"],
    ["process/active_token_ratio", "Active tokens", "share of tokens inside the gate"],
    ["process/gate_hit_rate", "Gate hits the error", "first gated token lies in the truly wrong step"],
    ["process/num_edits", "Edits per pair", "between failed and repaired"],
    ["policy/entropy", "Policy entropy", "nats per token"],
    ["policy/grad_norm", "Gradient norm", "before clipping"],
    ["response_length/mean", "Completion length", "tokens, mean"],
  ];
  const TITLES = { "avg@1": "T = 1", greedy: "Greedy" };
  const state = { axis: "updates", spread: "minmax", task: "", measure: "", off: new Set(), target: 0.8, auto: true };

  // Tasks and measures
  const evals = {};
  for (const run of runs) for (const name of Object.keys(run.curves)) {
    const match = /^eval\/(.+)\/([^/]+)$/.exec(name);
    if (match) (evals[match[1]] ||= new Set()).add(match[2]);
  }
  const rank = (m) => (m.startsWith("avg@") ? "0" + m : m === "greedy" ? "1" : "2" + m);
  const tasks = Object.keys(evals).sort();
  const measuresOf = (task) => [...(evals[task] || [])].sort((a, b) => (rank(a) < rank(b) ? -1 : 1));
  const title = (measure) => TITLES[measure] || measure;
  const evalName = () => `eval/${state.task}/${state.measure}`;
  const axisOf = () => AXES.find(([key]) => key === state.axis);
  const guessing = (some, among) => [...new Set(some.filter((a) => a.luck !== null && among.includes(a.task)).map((a) => a.luck))];
  const visible = () => arms.map((_, i) => i).filter((i) => !state.off.has(i));

  // --- Summary
  const counted = (triple, show) => (triple ? [show(triple[0])] : ["–"]);
  const measured = (triple, best) => {
    if (!triple) return ["–"];
    const value = triple[0].toFixed(3);
    return [triple[0] === best ? html("b", { text: value }) : value, html("span", { class: "pm", text: triple[1] === null ? "" : " ± " + triple[1].toFixed(3) })];
  };
  const summary = () => {
    const plain = [["updates", "Updates", format.compact], ["tokens", "Generated tokens", format.compact], ["trained", "Trained tokens", format.compact], ["seconds", "Time", format.duration]];
    const columns = tasks.flatMap((task) => measuresOf(task).filter((m) => m === "greedy" || m.startsWith("avg@")).map((m) => `eval/${task}/${m}`));
    const best = Object.fromEntries(columns.map((name) => {
      const ends = arms.map((a) => a.summary.eval[name]?.last?.[0] ?? -Infinity), top = Math.max(...ends);
      return [name, ends.filter((end) => end === top).length === 1 ? top : null];
    }));
    const head = [html("tr", {}, [html("th", { rowspan: 2, text: "Arm" }), html("th", { rowspan: 2, text: "Seeds" }),
      ...columns.map((name) => html("th", { colspan: 2, class: "first" }, [html("span", { text: `${tasks.length > 1 ? name.split("/")[1] + ", " : "Accuracy, "}${title(name.split("/").pop())}` })])),
      ...plain.map(([, text]) => html("th", { rowspan: 2, text }))]),
    html("tr", {}, columns.flatMap(() => [html("th", { class: "first", text: "start" }), html("th", { text: "end" })]))];
    const body = arms.map((arm, i) => html("tr", {}, [
      html("td", {}, [charts.swatch(i), arm.label]), html("td", { text: arm.runs.map((r) => runs[r].seed ?? "?").join(", ") }),
      ...columns.flatMap((name) => { const e = arm.summary.eval[name]; return [html("td", { class: "first" }, measured(e?.first).slice(0, 1)), html("td", {}, measured(e?.last, arms.length > 1 ? best[name] : null))]; }),
      ...plain.map(([key, , show]) => html("td", {}, counted(arm.summary[key], show)))]));
    byId("summary").replaceChildren(html("thead", {}, head), html("tbody", {}, body));
    const luck = guessing(arms, tasks);
    byId("summary-note").textContent = "Mean ± sample standard deviation over seeds; the end is each run's own last evaluation after its start. Costs are means per run; generated tokens count policy samples, repairs and audits."
      + (luck.length ? ` A uniform guess scores ${luck.map((l) => l.toFixed(3)).join(" or ")}.` : "");
    const differing = [...new Set(arms.flatMap((a) => Object.keys(a.settings)))].sort();
    if (differing.length) {
      byId("settings").hidden = false;
      byId("settings").querySelector("table").replaceChildren(
        html("thead", {}, [html("tr", {}, [html("th", { text: "Field" }), ...arms.map((a, i) => html("th", {}, [charts.swatch(i), a.label]))])]),
        html("tbody", {}, differing.map((name) => html("tr", {}, [html("td", { class: "text", text: name }), ...arms.map((a) => html("td", { class: "text", text: a.settings[name] ?? "" }))]))));
    }
    const count = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;
    byId("lede").textContent = [count(arms.length, "arm"), count(runs.length, "run"), tasks.join(", ")].filter(Boolean).join(" · ");
  };

  // --- Curves
  const curvesOf = (name) => visible().map((arm) => charts.armCurve(arm, name, state.axis)).filter((c) => c.points.length);
  const exists = (name) => runs.some((run) => (run.curves[name] || []).some((v) => v !== null));

  const crossing = (points) => {
    for (let i = 0; i < points.length; i++) {
      if (points[i].y < state.target) continue;
      if (!i) return points[0].x;
      const a = points[i - 1], b = points[i];
      return a.x + ((state.target - a.y) / (b.y - a.y)) * (b.x - a.x);
    }
    return null;
  };
  const reach = (curves) => {
    byId("target-value").textContent = state.target.toFixed(2);
    const unit = { updates: (x) => `${Math.round(x)} updates`, tokens: (x) => `${format.compact(x)} tokens`, seconds: format.duration }[state.axis];
    byId("reach-list").replaceChildren(...curves.map(({ arm, points }) => {
      const x = crossing(points);
      return html("li", {}, [charts.swatch(arm), x === null ? "not reached" : html("b", { text: unit(x) })]);
    }));
  };

  const accuracy = () => {
    const [axis, , axisName, axisText] = axisOf();
    const curves = curvesOf(evalName());
    const luck = guessing(visible().map((i) => arms[i]), [state.task]);
    const rules = [...luck.map((l) => [l, "luck", "guessing"]), [state.target, "goal", ""]];
    charts.draw(byId("accuracy"), { curves, axis, axisName, axisText, spread: state.spread, height: 400, big: true, domain: [0, 1], rules, title: `Accuracy, ${title(state.measure)}` });
    reach(curves);
    byId("partial").hidden = curves.every((c) => c.points.every((p) => p.whole));
    const updates = [...new Set(curves.flatMap((c) => c.points.map((p) => p.update)))].sort((a, b) => a - b);
    byId("values").querySelector("table").replaceChildren(
      html("thead", {}, [html("tr", {}, [html("th", { text: "Update" }), ...curves.map((c) => html("th", {}, [charts.swatch(c.arm), arms[c.arm].label]))])]),
      html("tbody", {}, updates.map((u) => html("tr", {}, [html("td", { text: u }), ...curves.map((c) => {
        const p = c.points.find((q) => q.update === u);
        return html("td", {}, p ? measured([p.y, p.std, p.n]) : ["–"]);
      })]))));
  };

  const panel = (name, heading, words) => html("div", { class: "panel" }, [html("h3", {}, [heading ? heading : html("code", { text: name })]), words ? html("p", { text: words }) : null, html("div", { class: "chart", "data-name": name })]);
  const drawPanels = (host) => {
    const [axis, , axisName, axisText] = axisOf();
    for (const chart of host.querySelectorAll(".chart")) {
      const curves = curvesOf(chart.dataset.name);
      if (curves.length) charts.draw(chart, { curves, axis, axisName, axisText, spread: state.spread, height: 168, title: chart.dataset.name });
      else chart.replaceChildren(html("p", { class: "note", text: "Not recorded by the arms shown." }));
    }
  };
  const redraw = () => {
    if (tasks.length) accuracy();
    drawPanels(byId("panels"));
    if (byId("further").open) drawPanels(byId("further"));
  };

  const chooseMeasure = () => {
    const measures = measuresOf(state.task);
    if (!measures.includes(state.measure)) state.measure = measures[0];
    dom.choice(byId("measure"), measures.map((m) => [m, title(m)]), state.measure, (m) => { state.measure = m; firstTarget(); redraw(); });
  };
  // The lowest final accuracy above the start: the level at which all arms that learned can be compared by cost.
  const firstTarget = () => {
    if (!state.auto) return;
    const summaries = arms.map((a) => a.summary.eval[evalName()]).filter((s) => s?.last);
    const start = Math.max(0, ...summaries.map((s) => s.first?.[0] ?? 0));
    const ends = summaries.map((s) => s.last[0]).filter((end) => end > start + 0.01);
    if (ends.length) state.target = Math.max(0.01, Math.floor(Math.min(...ends) * 100 - 1) / 100);
    byId("target").value = state.target;
  };

  const start = () => {
    summary();
    const hasAxis = ([key]) => runs.some((run) => run[key].length);
    dom.choice(byId("axis"), AXES.map((a) => [a[0], a[1], !hasAxis(a)]), state.axis, (axis) => { state.axis = axis; redraw(); });
    dom.choice(byId("spread"), [["minmax", "min – max"], ["std", "± std"], ["seeds", "each seed"]], state.spread, (s) => { state.spread = s; redraw(); });
    byId("legend").replaceChildren(...arms.map((arm, i) => {
      const button = html("button", { type: "button", "aria-pressed": "true" }, [charts.swatch(i), arm.label]);
      button.addEventListener("click", () => {
        if (state.off.has(i)) state.off.delete(i);
        else state.off.add(i);
        button.setAttribute("aria-pressed", String(!state.off.has(i)));
        redraw();
      });
      return button;
    }));
    if (tasks.length) {
      state.task = tasks[0];
      byId("task-box").hidden = tasks.length < 2;
      byId("task").replaceChildren(...tasks.map((t) => html("option", { value: t, text: t })));
      byId("task").addEventListener("change", (event) => { state.task = event.target.value; chooseMeasure(); firstTarget(); redraw(); });
      chooseMeasure();
      firstTarget();
      byId("target").addEventListener("input", (event) => { state.target = Number(event.target.value); state.auto = false; redraw(); });
    } else {
      for (const node of [byId("accuracy"), byId("reach"), byId("values"), byId("measure").parentNode]) node.hidden = true;
      byId("legend").before(html("p", { class: "note", text: "Nothing was evaluated yet (eval.every)." }));
    }
    const listed = new Set(PANELS.map(([name]) => name));
    byId("panels").replaceChildren(...PANELS.filter(([name]) => exists(name)).map(([name, heading, words]) => panel(name, heading, words)));
    byId("process").hidden = !byId("panels").children.length;
    const rest = [...new Set(runs.flatMap((run) => Object.keys(run.curves)))].filter((name) => !listed.has(name) && !name.startsWith("eval/") && exists(name)).sort();
    byId("further").hidden = !rest.length;
    byId("further").querySelector(".grid").replaceChildren(...rest.map((name) => panel(name)));
    byId("further").addEventListener("toggle", () => { if (byId("further").open) drawPanels(byId("further")); });
    let queued = 0, width = 0;
    new ResizeObserver(([entry]) => {
      if (entry.contentRect.width === width) return;
      width = entry.contentRect.width;
      cancelAnimationFrame(queued);
      queued = requestAnimationFrame(redraw);
    }).observe(document.querySelector("main"));
    redraw();
  };

  // --- Theme: the system's, unless the reader chose one; a file opened from disk may have no storage.
  const system = matchMedia("(prefers-color-scheme: dark)");
  const stored = () => { try { return localStorage.getItem("jaxrl-theme"); } catch { return null; } };
  let wanted = ["light", "dark"].includes(stored()) ? stored() : "auto";
  const paint = (printing) => { document.documentElement.dataset.theme = printing === true ? "light" : wanted === "auto" ? (system.matches ? "dark" : "light") : wanted; };
  dom.choice(byId("theme"), null, wanted, (value) => {
    wanted = value;
    try { localStorage.setItem("jaxrl-theme", value); } catch { /* the choice then lasts as long as the page */ }
    paint();
  });
  system.addEventListener("change", paint);
  addEventListener("beforeprint", () => paint(true));
  addEventListener("afterprint", () => paint());
  paint();
  start();
})();
