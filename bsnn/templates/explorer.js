// The explorer of a report. `vegaEmbed` is in the same script (vl-convert's bundle); nothing is fetched.
const root = document.documentElement;
const explorer = document.getElementById("explorer");
const data = JSON.parse(document.getElementById("explorer-data").textContent);
const head = explorer.querySelectorAll("thead th");
const body = explorer.querySelector("tbody");
const slider = explorer.querySelector("input[name=time]");
const times = [...new Set(data.rows.map((row) => row.T))].sort((a, b) => a - b);
const order = { column: "spikes", down: false };
let drawn = Promise.resolve();

const chosen = (name) => [...explorer.querySelectorAll(`input[name=${name}]:checked`)].map((one) => one.value);
const time = () => times[slider.value];

function selected() {
  const weights = new Set(chosen("weights"));
  const series = new Set(chosen("series"));
  return data.rows.filter((row) => weights.has(row.weights) && series.has(row.series));
}

function number(value, digits) {
  if (value === null || value === undefined) return "";
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

function table(rows) {
  const at = rows.filter((row) => row.T === time());
  const sign = order.down ? -1 : 1;
  const value = (row) => (row[order.column] === null ? -Infinity : row[order.column]);
  at.sort((a, b) => sign * (value(a) > value(b) ? 1 : value(a) < value(b) ? -1 : 0));
  body.replaceChildren(
    ...at.map((row) => {
      const cells = [
        row.weights,
        row.series,
        String(row.T),
        number(row.accuracy, 2),
        row.low === null ? "" : `${number(row.low, 1)} to ${number(row.high, 1)}`,
        number(row.ann, 2),
        number(row.spikes, 0),
        number(row.energy, 0),
      ];
      const line = document.createElement("tr");
      cells.forEach((text, index) => {
        const cell = document.createElement("td");
        cell.textContent = text;
        if (index > 1) cell.className = "number";
        line.append(cell);
      });
      return line;
    }),
  );
  for (const one of head) {
    const mine = one.dataset.column === order.column;
    one.setAttribute("aria-sort", mine ? (order.down ? "descending" : "ascending") : "none");
  }
}

function look() {
  const style = getComputedStyle(root);
  const ink = style.getPropertyValue("--ink").trim();
  const line = style.getPropertyValue("--line").trim();
  return {
    axis: { labelColor: ink, titleColor: ink, gridColor: line, domainColor: ink, tickColor: ink },
    legend: { labelColor: ink, titleColor: ink, symbolFillColor: ink, symbolStrokeColor: ink },
  };
}

function picture(rows) {
  const axis = chosen("axis")[0];
  const spec = structuredClone(data.chart);
  const low = spec.layer[1].encoding.y.scale.domain[0];
  const seen = rows.filter((row) => row.accuracy >= low && row[axis] > 0).map((row) => row[axis]);
  spec.data = { name: "rows", values: rows.filter((row) => row[axis] > 0) };
  spec.config = { ...spec.config, ...look() };
  for (const layer of spec.layer) {
    if (layer.encoding.x) {
      Object.assign(layer.encoding.x, { field: axis, title: data.titles[axis] });
      if (seen.length) layer.encoding.x.scale.domainMin = 0.8 * Math.min(...seen);
    }
    if (layer.name === "points") {
      const now = { test: `datum.T === ${time()}`, value: 170 };
      layer.encoding.size = { condition: now, value: 30 };
    }
    const colour = layer.encoding.color;
    if (colour) colour.legend.columns = explorer.clientWidth < 520 ? 2 : 4;
  }
  const place = document.getElementById("explorer-chart");
  drawn = drawn
    .then(() => vegaEmbed(place, spec, { actions: false, renderer: "svg", tooltip: { theme: dark() ? "dark" : "light" } }))
    .then((result) => {
      result.view.addEventListener("click", (_, item) => {
        if (item && item.datum && item.datum.T !== undefined) {
          slider.value = times.indexOf(item.datum.T);
          show();
        }
      });
      explorer.dataset.drawn = String(rows.length);
    });
}

function show() {
  const rows = selected();
  explorer.querySelector("output").textContent = String(time());
  table(rows);
  picture(rows);
}

function download() {
  const columns = ["weights", "series", "T", "accuracy", "low", "high", "ann", "spikes", "energy"];
  const lines = selected().map((row) => columns.map((name) => row[name] ?? "").join(","));
  const file = new Blob([[columns.join(","), ...lines, ""].join("\n")], { type: "text/csv" });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(file);
  link.download = `${explorer.dataset.name}.csv`;
  link.click();
  URL.revokeObjectURL(link.href);
}

function dark() {
  const wanted = root.dataset.theme;
  return wanted ? wanted === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

root.classList.add("scripted");
slider.max = times.length - 1;
slider.value = times.indexOf(Number(slider.dataset.time));
for (const one of head) {
  one.querySelector("button").addEventListener("click", () => {
    order.down = order.column === one.dataset.column ? !order.down : false;
    order.column = one.dataset.column;
    show();
  });
}
explorer.addEventListener("input", show);
document.getElementById("explorer-download").addEventListener("click", download);
document.getElementById("theme").addEventListener("click", () => {
  root.dataset.theme = dark() ? "light" : "dark";
  show();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
addEventListener("resize", show);
show();
