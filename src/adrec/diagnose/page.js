"use strict";
(() => {
  const data = JSON.parse(document.getElementById("maps-data").textContent);
  const pick = (place) => (place === null ? null : data.arrays[place]);
  const maps = data.maps.map((map, k) => ({
    at: map.at, contours: {}, name: map.name, outlines: map.contours,
    ids: map.ids, labels: pick(map.ids), counts: pick(map.counts), values: pick(map.values),
    canvas: document.getElementById("map-" + k),
  }));
  for (const map of maps)
    for (const method of Object.keys(map.outlines))
      map.contours[method] = map.outlines[method].map((outline) => new Path2D(outline));

  let method = data.methods[0];
  let chosen = null; // {ids, k}: the same item in every map that knows it
  const kept = new Set(); // values that are picked out in the legend

  const theme = () => {
    const style = getComputedStyle(document.documentElement);
    const read = (name) => style.getPropertyValue(name).trim();
    return {
      ink: read("--ink"), paper: read("--paper"), soft: read("--soft"), grey: read("--grey"), noise: read("--noise"),
      colours: Array.from({length: data.colours}, (_, k) => read("--c" + k)),
    };
  };

  // Grey below, colours in the order of rows; what is not picked out is grey.
  const layers = (map, colours) => {
    const coloured = (value) => value >= 0 && value < data.colours && (kept.size === 0 || kept.has(value));
    const all = Array.from({length: map.at[method].length / 2}, (_, k) => k);
    if (map.values === null) return [[all, () => (map.labels === null ? colours.noise : colours.colours[0])]];
    return [
      [all.filter((k) => !coloured(map.values[k])), () => colours.grey],
      [all.filter((k) => coloured(map.values[k])), (k) => colours.colours[map.values[k]]],
    ];
  };

  const draw = (map) => {
    const side = map.canvas.clientWidth, ratio = window.devicePixelRatio || 1;
    map.canvas.width = map.canvas.height = Math.round(side * ratio);
    const context = map.canvas.getContext("2d"), colours = theme(), at = map.at[method];
    const unit = (side * ratio) / data.scale;
    context.setTransform(unit, 0, 0, unit, 0, 0);
    context.fillStyle = colours.soft;
    context.globalAlpha = 0.13;
    for (const outline of map.contours[method]) context.fill(outline, "evenodd");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    const size = Math.min(4, Math.max(1.1, (side * 0.2) / Math.sqrt(at.length / 2)));
    context.globalAlpha = 0.75;
    for (const [points, colour] of layers(map, colours))
      for (const k of points) {
        context.fillStyle = colour(k);
        context.beginPath();
        context.arc((at[2 * k] * side) / data.scale, (at[2 * k + 1] * side) / data.scale, size, 0, 7);
        context.fill();
      }
    context.setTransform(unit, 0, 0, unit, 0, 0);
    context.strokeStyle = colours.soft;
    context.lineWidth = ratio / unit;
    for (const outline of map.contours[method]) context.stroke(outline);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.globalAlpha = 1;
    if (chosen !== null && chosen.ids === map.ids && map.labels !== null) mark(map, context, colours, side);
  };

  const short = (text) => (text.length > 36 ? text.slice(0, 35) + "…" : text);

  const told = (map, k) => {
    const lines = [short(map.labels[k])];
    if (map.values !== null && map.values[k] >= 0) lines.push(short(data.values[map.values[k]]));
    if (map.counts !== null) lines.push(map.counts[k] + (map.counts[k] === 1 ? " interaction" : " interactions"));
    return lines;
  };

  const mark = (map, context, colours, side) => {
    const k = chosen.k, at = map.at[method], lines = told(map, k);
    const x = (at[2 * k] * side) / data.scale, y = (at[2 * k + 1] * side) / data.scale;
    context.lineWidth = 2;
    context.strokeStyle = colours.ink;
    context.beginPath();
    context.arc(x, y, 7, 0, 7);
    context.stroke();
    context.font = "13px system-ui, sans-serif";
    const width = Math.max(...lines.map((line) => context.measureText(line).width)) + 14, height = 18 * lines.length + 8;
    const left = Math.max(2, Math.min(side - width - 2, x + 12 + width > side ? x - 12 - width : x + 12));
    const top = Math.max(2, Math.min(side - height - 2, y - height / 2));
    context.lineWidth = 1;
    context.fillStyle = colours.paper;
    context.fillRect(left, top, width, height);
    context.strokeRect(left, top, width, height);
    context.fillStyle = colours.ink;
    lines.forEach((line, row) => context.fillText(line, left + 7, top + 17 + 18 * row));
  };

  const redraw = () => maps.forEach(draw);
  let waiting = false;
  const soon = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; redraw(); });
  };

  const nearest = (map, event) => {
    const frame = map.canvas.getBoundingClientRect(), at = map.at[method];
    const x = ((event.clientX - frame.left) / frame.width) * data.scale;
    const y = ((event.clientY - frame.top) / frame.height) * data.scale;
    const reach = ((event.pointerType === "touch" ? 28 : 14) / frame.width) * data.scale;
    let best = -1, least = reach * reach;
    for (let k = 0; 2 * k < at.length; k++) {
      const distance = (at[2 * k] - x) ** 2 + (at[2 * k + 1] - y) ** 2;
      if (distance < least) { least = distance; best = k; }
    }
    return best;
  };

  for (const map of maps) {
    if (map.labels === null) continue;
    const point = (event) => {
      const k = nearest(map, event);
      chosen = k < 0 ? null : {ids: map.ids, k};
      soon();
    };
    map.canvas.addEventListener("pointermove", point);
    map.canvas.addEventListener("pointerdown", point);
    map.canvas.addEventListener("pointerleave", (event) => {
      if (event.pointerType !== "touch") { chosen = null; soon(); }
    });
  }

  for (const input of document.querySelectorAll("input[name=method]"))
    input.addEventListener("change", () => { method = input.value; soon(); });
  document.getElementById("find").addEventListener("input", (event) => {
    const wanted = event.target.value.trim();
    chosen = null;
    for (const exact of [true, false])
      for (const map of maps) {
        if (!wanted || chosen !== null || map.labels === null) continue;
        const k = map.labels.findIndex((label) => (exact ? label === wanted : label.startsWith(wanted)));
        if (k >= 0) chosen = {ids: map.ids, k};
      }
    soon();
  });
  for (const button of document.querySelectorAll("button[data-value]"))
    button.addEventListener("click", () => {
      const value = Number(button.dataset.value);
      if (!kept.delete(value)) kept.add(value);
      button.setAttribute("aria-pressed", String(kept.has(value)));
      soon();
    });
  window.addEventListener("resize", soon);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", soon);
  redraw();
})();
