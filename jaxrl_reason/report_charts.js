// Summary table, curves and their controls. Text enters the page through textContent only.
"use strict";
const report = JSON.parse(document.getElementById("data").textContent);

const dom = (() => {
  const byId = (id) => document.getElementById(id);
  const fill = (node, attributes, children) => {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === undefined || value === null || value === false) continue;
      if (name === "text") node.textContent = value;
      else if (name.startsWith("--")) node.style.setProperty(name, value);
      else node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...(children || []).filter((child) => child !== null && child !== undefined));
    return node;
  };
  const html = (tag, attributes, children) => fill(document.createElement(tag), attributes, children);
  const svg = (tag, attributes, children) => fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
  const tip = byId("tip");
  const showTip = (event, children) => {
    tip.replaceChildren(...children);
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const left = event.clientX + 16 + box.width > innerWidth ? event.clientX - 16 - box.width : event.clientX + 16;
    const top = event.clientY + 18 + box.height > innerHeight ? event.clientY - 14 - box.height : event.clientY + 18;
    tip.style.left = Math.max(4, left) + "px";
    tip.style.top = Math.max(4, top) + "px";
  };
  const hideTip = () => { tip.hidden = true; };
  // A row of buttons of which one is pressed.
  const choice = (host, options, value, onChange) => {
    const press = (chosen) => { for (const b of host.children) b.setAttribute("aria-pressed", b.value === chosen); };
    if (options) host.replaceChildren(...options.map(([key, text, disabled]) => html("button", { type: "button", value: key, text, disabled })));
    for (const button of host.children) button.addEventListener("click", () => { press(button.value); onChange(button.value); });
    press(value);
  };
  return { byId, html, svg, showTip, hideTip, choice };
})();

const format = (() => {
  const minus = (text) => text.replaceAll("-", "−");
  const compact = (value) => {
    for (const [limit, unit] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]])
      if (Math.abs(value) >= limit) return minus(String(Number((value / limit).toPrecision(3)))) + unit;
    const rounded = Number(value.toPrecision(3));
    return minus(rounded !== 0 && Math.abs(rounded) < 1e-3 ? rounded.toExponential() : String(rounded));
  };
  const plain = (value) => {
    const size = Math.abs(value);
    if (size >= 1e4) return compact(value);
    if (size !== 0 && size < 1e-3) return minus(value.toExponential(2));
    return minus(size >= 100 ? value.toFixed(1) : size >= 10 ? value.toFixed(2) : value.toFixed(3));
  };
  const duration = (seconds) => {
    if (seconds < 90) return Number(seconds.toPrecision(3)) + " s";
    if (seconds < 5400) return Number((seconds / 60).toPrecision(3)) + " min";
    return Number((seconds / 3600).toPrecision(3)) + " h";
  };
  return { compact, plain, duration };
})();

const charts = (() => {
  const { html, svg } = dom;
  const MARKS = ["M-3.6,0a3.6,3.6 0 1,0 7.2,0a3.6,3.6 0 1,0 -7.2,0", "M-3.2,-3.2h6.4v6.4h-6.4z", "M0,-4.2L4,3.1H-4z", "M0,-4.4L4.4,0L0,4.4L-4.4,0z", "M0,4.2L4,-3.1H-4z"];
  const color = (arm) => `var(--arm-${arm % 8})`;
  const mark = (arm) => MARKS[arm % MARKS.length];
  const swatch = (arm) => svg("svg", { class: "swatch", viewBox: "0 -5 22 10" }, [
    svg("path", { d: "M0,0H22", stroke: color(arm), "stroke-width": 2 }), svg("path", { d: mark(arm), fill: color(arm), transform: "translate(11,0)" })]);

  const ticks = (low, high, count, least) => {
    if (!(high > low)) return [low];
    const raw = (high - low) / Math.max(count, 1);
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = Math.max(least || 0, [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999));
    const found = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(Number((i * step).toPrecision(12)));
    return found;
  };

  // One arm's curve: a point per update that any seed reached; n says how many did.
  const armCurve = (arm, name, axis) => {
    const lines = [];
    for (const index of report.arms[arm].runs) {
      const run = report.runs[index], values = run.curves[name], xs = run[axis];
      if (!values || !xs.length) continue;
      const line = [];
      values.forEach((y, i) => { if (y !== null) line.push({ update: run.updates[i], x: xs[i], y }); });
      if (line.length) lines.push(line);
    }
    const byUpdate = new Map();
    for (const line of lines) for (const point of line) byUpdate.set(point.update, [...(byUpdate.get(point.update) || []), point]);
    const points = [...byUpdate].sort((a, b) => a[0] - b[0]).map(([update, at]) => {
      const n = at.length, ys = at.map((p) => p.y), y = ys.reduce((a, b) => a + b) / n;
      const std = n > 1 ? Math.sqrt(ys.reduce((a, b) => a + (b - y) ** 2, 0) / (n - 1)) : null;
      return { update, x: at.reduce((a, p) => a + p.x, 0) / n, y, std, min: Math.min(...ys), max: Math.max(...ys), n, whole: n === lines.length };
    });
    return { arm, lines, points };
  };

  const band = (points, spread) => points.filter((p) => p.n > 1).map((p) => (spread === "std" ? { x: p.x, low: p.y - p.std, high: p.y + p.std } : { x: p.x, low: p.min, high: p.max }));

  const range = (curves, spread, fixed) => {
    let low = Infinity, high = -Infinity;
    const see = (value) => { low = Math.min(low, value); high = Math.max(high, value); };
    for (const { lines, points } of curves) {
      points.forEach((p) => see(p.y));
      if (spread === "seeds") lines.flat().forEach((p) => see(p.y));
      else band(points, spread).forEach((p) => { see(p.low); see(p.high); });
    }
    if (fixed) return fixed;
    if (low > 0 && low < 0.6 * high) low = 0;
    // A constant differs from itself by rounding once it is averaged.
    if (high - low <= 1e-9 * Math.max(Math.abs(low), Math.abs(high))) { low -= Math.abs(low) * 0.1; high += Math.abs(high) * 0.1 || 0.1; }
    const pad = (high - low) * 0.06;
    return [low === 0 ? 0 : low - pad, high + pad];
  };

  const pen = document.createElement("canvas").getContext("2d");
  const textWidth = (text) => {
    pen.font = "600 12.5px " + getComputedStyle(document.documentElement).getPropertyValue("--sans");
    return pen.measureText(text).width;
  };

  // Names at the ends of the lines, moved apart where they would overlap.
  const endLabels = (curves, X, Y, bottom) => {
    const labels = curves.filter((c) => c.points.length).map((c) => {
      const last = c.points[c.points.length - 1];
      return { arm: c.arm, x: X(last.x) + 11, y: Y(last.y) };
    }).sort((a, b) => a.y - b.y);
    labels.forEach((label, i) => { if (i && label.y < labels[i - 1].y + 15) label.y = labels[i - 1].y + 15; });
    for (let i = labels.length - 1, floor = bottom; i >= 0; i--, floor = labels[i + 1].y - 15) labels[i].y = Math.min(labels[i].y, floor);
    return labels.map((l) => svg("text", { class: "end", x: l.x, y: l.y + 4, "--c": color(l.arm), text: report.arms[l.arm].label }));
  };

  const draw = (host, spec) => {
    const width = host.clientWidth;
    if (!width) return;
    const { axis, spread, height, big } = spec;
    const curves = spec.curves;
    const longest = Math.max(0, ...curves.map((c) => textWidth(report.arms[c.arm].label)));
    const named = big && longest < 0.25 * width && curves.length <= 8;
    const box = { left: 46, right: named ? 16 + longest : 12, top: 10, bottom: big ? 44 : 24 };
    const right = width - box.right, bottom = height - box.bottom;
    const all = curves.flatMap((c) => c.points);
    const [lowY, highY] = range(curves, spread, spec.domain);
    const lowX = Math.min(...all.map((p) => p.x)), highX = Math.max(...all.map((p) => p.x));
    const X = (x) => box.left + (highX > lowX ? (x - lowX) / (highX - lowX) : 0.5) * (right - box.left);
    const Y = (y) => bottom - ((y - lowY) / (highY - lowY)) * (bottom - box.top);
    const path = (points) => points.map((p, i) => (i ? "L" : "M") + X(p.x).toFixed(1) + "," + Y(p.y).toFixed(1)).join("");
    const parts = [];
    for (const y of ticks(lowY, highY, big ? 6 : 4)) {
      parts.push(svg("line", { class: "gridline", x1: box.left, x2: right, y1: Y(y), y2: Y(y) }));
      parts.push(svg("text", { x: box.left - 8, y: Y(y) + 4, "text-anchor": "end", text: spec.domain ? y.toFixed(1) : format.compact(y) }));
    }
    for (const x of ticks(lowX, highX, Math.max(2, (right - box.left) / (big ? 110 : 80)), axis === "updates" ? 1 : 0)) {
      parts.push(svg("line", { class: "axis", x1: X(x), x2: X(x), y1: bottom, y2: bottom + 4 }));
      parts.push(svg("text", { x: X(x), y: bottom + 17, "text-anchor": "middle", text: format.compact(x) }));
    }
    parts.push(svg("line", { class: "axis", x1: box.left, x2: right, y1: bottom, y2: bottom }));
    if (big) parts.push(svg("text", { x: (box.left + right) / 2, y: height - 6, "text-anchor": "middle", text: spec.axisName }));
    for (const [value, kind, name] of spec.rules || []) {
      parts.push(svg("line", { class: kind, x1: box.left, x2: right, y1: Y(value), y2: Y(value) }));
      if (name) parts.push(svg("text", { x: right - 4, y: Y(value) - 5, "text-anchor": "end", text: name }));
    }
    for (const { arm, lines, points } of curves) {
      if (spread === "seeds") for (const line of lines) parts.push(svg("path", { class: "seed", d: path(line), stroke: color(arm) }));
      const area = spread === "seeds" ? [] : band(points, spread);
      if (area.length > 1) {
        const edge = [...area.map((p) => ({ x: p.x, y: p.high })), ...area.reverse().map((p) => ({ x: p.x, y: p.low }))];
        parts.push(svg("path", { class: "band", d: path(edge) + "Z", fill: color(arm) }));
      }
    }
    for (const { arm, points } of curves) {
      const wholes = points.filter((p) => p.whole), last = wholes.length ? wholes[wholes.length - 1].update : -Infinity;
      const partial = points.filter((p) => p.update >= last);
      parts.push(svg("path", { class: "mean", d: path(points.filter((p) => p.update <= last)), stroke: color(arm) }));
      if (partial.length > 1) parts.push(svg("path", { class: "mean partial", d: path(partial), stroke: color(arm) }));
      if (points.length <= (big ? 60 : 1)) for (const p of points) parts.push(svg("path", { d: mark(arm), fill: color(arm), transform: `translate(${X(p.x).toFixed(1)},${Y(p.y).toFixed(1)})` }));
    }
    if (named) parts.push(...endLabels(curves, X, Y, bottom));
    const cursor = svg("g", { visibility: "hidden" });
    parts.push(cursor);
    const node = svg("svg", { height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": spec.title }, parts);
    node.addEventListener("pointermove", (event) => {
      const at = event.clientX - node.getBoundingClientRect().left;
      const near = (points) => points.reduce((best, p) => (Math.abs(X(p.x) - at) < Math.abs(X(best.x) - at) ? p : best));
      if (!all.length) return;
      const center = near(all);
      const rows = curves.filter((c) => c.points.length).map((c) => ({ arm: c.arm, p: near(c.points) })).filter(({ p }) => (axis === "updates" ? p.update === center.update : true)).sort((a, b) => b.p.y - a.p.y);
      cursor.replaceChildren(svg("line", { class: "cursor", x1: X(center.x), x2: X(center.x), y1: box.top, y2: bottom }),
        ...rows.map(({ arm, p }) => svg("circle", { cx: X(p.x), cy: Y(p.y), r: 4.5, fill: "none", stroke: color(arm), "stroke-width": 2 })));
      cursor.setAttribute("visibility", "visible");
      dom.showTip(event, [html("div", { class: "head", text: spec.title + (axis === "updates" ? `, update ${center.update}` : "") }), html("table", {}, rows.map(({ arm, p }) => html("tr", {}, [
        html("td", {}, [swatch(arm), report.arms[arm].label]), html("td", {}, [html("b", { text: format.plain(p.y) })]),
        html("td", { class: "pm", text: p.n < 2 ? "" : spread === "std" ? "± " + format.plain(p.std) : `${format.plain(p.min)} – ${format.plain(p.max)}` }),
        html("td", { class: "pm", text: (axis === "updates" ? "" : `update ${p.update}, ${spec.axisText(p.x)}, `) + `n = ${p.n}` })])))]);
    });
    node.addEventListener("pointerleave", () => { cursor.setAttribute("visibility", "hidden"); dom.hideTip(); });
    host.replaceChildren(node);
  };

  return { armCurve, draw, swatch, color };
})();
