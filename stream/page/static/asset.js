// The right side: one asset with its signals in their bands, its scores, contributions and alerts.

import { deedsOf, updateDeeds, updateLabels } from "./act.js";
import { Chart } from "./chart.js";
import { h, keyed, say, shape } from "./dom.js";
import { STATES, causesOf, clock, diagnosisOf, duration, measured, moment, number, percent, plural, ratio as ratioOf, unitOf, verdictOf, words } from "./format.js";

const $ = (id) => document.getElementById(id);
const MOST_ROWS = 1800;
const TABLE_ROWS = 30;
const OTHERS = ["other1", "other2", "other3"];
const SPANS_S = [60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 43200, 86400, 172800, 345600, 604800, 1209600, 2592000];

export class AssetView {
  constructor(name) {
    this.name = name;
    this.rows = new Map(); // by detector: columns that grow
    this.said = null;
    this.detector = null;
    this.span = null;
    this.charts = new Map();
    this.cursor = null;
    this.chose = false;
    for (const id of ["score", "signals", "shares", "asset-alerts", "detectors", "spans"]) {
      const keep = $(id).querySelector("legend");
      $(id).replaceChildren(...(keep ? [keep] : []));
    }
    $("history").tBodies[0].replaceChildren();
    say($("asset-name"), name);
    say($("asset-newest"), "");
    $("table-details").open = false;
  }

  /** From when on rows are still to be asked for. */
  get since() {
    const newest = [...this.rows.values()].map((held) => held.at_ms.at(-1) ?? 0);
    return newest.length ? Math.min(...newest) : 0;
  }

  /** Take an answer of /api/asset in and draw. */
  take(said) {
    this.said = said;
    for (const part of said.detectors) this.merge(part);
    this.choose();
    this.draw();
  }

  /** Its open alerts, the worst first. */
  open() {
    const level = Object.keys(STATES);
    return this.said.alerts.filter((alert) => alert.state !== "resolved").sort((a, b) => level.indexOf(a.severity) - level.indexOf(b.severity));
  }

  gone() {
    $("no-rows").hidden = false;
    $("drawings").hidden = $("controls").hidden = true;
    say($("no-rows"), "This worker knows nothing of this asset now. It may be on another worker, or not have sent a reading since this one started.");
  }

  merge(part) {
    let held = this.rows.get(part.name);
    if (!held || held.signals.join("\n") !== part.signals.join("\n")) {
      held = { ...part, at_ms: [], score: [], threshold: [], values: part.signals.map(() => []), share: part.signals.map(() => []) };
      for (const table of ["expected", "low", "high"]) held[table] = part[table] ? part.signals.map(() => []) : null;
      this.rows.set(part.name, held);
    }
    held.verdict = part.verdict || held.verdict;
    held.model_version = part.model_version;
    const newest = held.at_ms.at(-1) ?? 0;
    const first = part.at_ms.findIndex((at) => at > newest);
    if (first < 0) return;
    const add = (mine, theirs) => {
      for (let row = first; row < theirs.length; row++) mine.push(theirs[row]);
      if (mine.length > MOST_ROWS) mine.splice(0, mine.length - MOST_ROWS);
    };
    for (const column of ["at_ms", "score", "threshold"]) add(held[column], part[column]);
    for (const table of ["values", "expected", "low", "high", "share"]) {
      if (held[table] && part[table]) held[table].forEach((mine, signal) => add(mine, part[table][signal]));
    }
  }

  /** Which detector's band is drawn: that of the worst open alert if it has one, else one that has an expectation. */
  choose() {
    const names = [...this.rows.keys()].sort();
    const open = this.open().map((alert) => alert.detector);
    const banded = (name) => this.rows.get(name)?.low;
    if (!this.chose || !this.rows.has(this.detector)) this.detector = open.find(banded) ?? names.find(banded) ?? open.find((name) => this.rows.has(name)) ?? names[0] ?? null;
    const held = this.rows.get(this.detector);
    $("drawings").hidden = $("controls").hidden = !held;
    $("no-rows").hidden = Boolean(held);
    if (!held) {
      say($("no-rows"), "No scores of this asset are in this worker's memory yet: they are drawn as soon as they come.");
      return;
    }
    this.radios("detectors", names.map((name) => [name, shorter(name, names)]), this.detector, (name) => {
      this.detector = name;
      this.chose = true;
    });
    $("detectors").hidden = names.length < 2;
    const steps = held.at_ms.slice(-200).map((at, row, all) => at - all[row - 1]).slice(1).sort((a, b) => a - b);
    this.step = steps[steps.length >> 1] || 1000;
    const wanted = [150, 600].map((rows) => SPANS_S.find((s) => s * 1000 >= rows * this.step * 0.75) ?? SPANS_S.at(-1));
    const spans = [...new Set(wanted)].map((seconds) => [String(seconds), duration(seconds * 1000)]);
    spans.push(["all", "all"]);
    if (!spans.some(([value]) => value === this.span)) this.span = spans.at(-2)[0];
    this.radios("spans", spans, this.span, (span) => {
      this.span = span;
    });
  }

  radios(id, choices, chosen, pick) {
    const there = [...$(id).querySelectorAll("input")].map((input) => input.value).join("\n");
    if (there !== choices.map(([value]) => value).join("\n")) {
      for (const label of $(id).querySelectorAll("label")) label.remove();
      for (const [value, text] of choices) {
        const input = h("input", { type: "radio", name: id, value });
        input.addEventListener("change", () => {
          pick(value);
          this.draw();
        });
        $(id).append(h("label", {}, input, h("span", { text })));
      }
    }
    for (const input of $(id).querySelectorAll("input")) input.checked = input.value === chosen;
  }

  draw() {
    const { said } = this;
    $("asset-state").dataset.state = said.state;
    if ($("asset-state").dataset.said !== said.state) {
      $("asset-state").dataset.said = said.state;
      $("asset-state").replaceChildren(shape(said.state), STATES[said.state]);
    }
    if (said.newest_ms) say($("asset-newest"), `newest reading ${moment(said.newest_ms, said.at_ms)}${said.state === "silent" ? `, silent for ${duration(said.quiet_s * 1000)}` : ""}`);
    this.drawTold();
    this.drawHistory();
    const held = this.rows.get(this.detector);
    if (!held || !held.at_ms.length) return;
    const to = Math.max(...[...this.rows.values()].map((rows) => rows.at_ms.at(-1) ?? 0));
    const from = this.span === "all" ? held.at_ms[0] : to - Number(this.span) * 1000;
    this.window = { from, to: Math.max(to, from + 1), gap: 5 * this.step };
    const level = Object.keys(STATES); // the worst is drawn last, over the others
    const spans = said.alerts.map((alert) => ({ from: Date.parse(alert.onset), to: Date.parse(alert.resolved ?? alert.last_seen), state: alert.severity, detector: alert.detector }));
    this.spans = spans.sort((a, b) => level.indexOf(b.state) - level.indexOf(a.state));
    this.drawScore();
    this.drawSignals(held);
    this.drawShares(held);
    if ($("table-details").open) this.drawTable(held);
  }

  drawTold() {
    const open = this.open();
    keyed(
      $("asset-alerts"),
      open,
      (alert) => alert.id,
      () => h("div", { class: "told" }, h("p"), h("ul"), h("p", { class: "muted" }), deedsOf()),
      (card, alert) => {
        card.dataset.state = alert.severity;
        const opened = Date.parse(alert.opened);
        const verdict = verdictOf(alert.verdict);
        const [head, why, when, deeds] = card.children;
        const diagnosis = diagnosisOf(alert);
        say(head, `${STATES[alert.severity][0].toUpperCase()}${STATES[alert.severity].slice(1)}: ${verdict || "not as expected"}, says ${alert.detector}${diagnosis && `; ${diagnosis}`}`);
        const causes = alert.causes.slice(0, 3).filter((cause, place) => !place || cause.share >= 0.05);
        keyed(why, causes, (cause) => cause.signal, () => h("li"), (item, cause) => say(item, this.sentence(cause)));
        say(
          when,
          `Since ${moment(Date.parse(alert.onset), this.said.at_ms)}, told ${moment(opened, this.said.at_ms)}, open for ${duration(Date.parse(alert.last_seen) - opened)}. ` +
            `Peak ${ratioOf(alert.peak / alert.threshold)} times the threshold at ${moment(Date.parse(alert.peak_at), this.said.at_ms)}, ${ratioOf(alert.score / alert.threshold)} times at the last update.` +
            (alert.confidence < 1 ? ` ${percent(alert.confidence)} of its signals had a value.` : "") +
            ` Model ${alert.model_version}. Alert ${alert.id}.`,
        );
        updateDeeds(deeds, alert, this.said.at_ms, this.said.acts);
      },
    );
  }

  sentence(cause) {
    const unit = unitOf(this.said.units[cause.signal]);
    const value = cause.value === undefined ? "" : ` was ${measured(cause.value, unit)}`;
    const range = cause.low === undefined ? "" : `, expected ${number(cause.low)} to ${measured(cause.high, unit)}`;
    return `${words(cause.signal)}${value}${range} (${percent(cause.share)})`;
  }

  drawScore() {
    const names = [...this.rows.keys()].sort();
    const colours = new Map(names.map((name) => [name, "series"]));
    names.filter((name) => name !== this.detector).forEach((name, place) => colours.set(name, OTHERS[place % OTHERS.length]));
    const dashes = [[], [6, 3], [2, 3], [8, 3, 2, 3]];
    const lines = [...names.filter((name) => name !== this.detector), this.detector].map((name) => {
      const held = this.rows.get(name);
      const values = held.score.map((score, row) => (score === null || !(held.threshold[row] > 0) ? null : score / held.threshold[row]));
      const place = names.filter((other) => other !== this.detector).indexOf(name) + 1;
      return { name, at: held.at_ms, values, colour: colours.get(name), width: name === this.detector ? 1.8 : 1.3, dash: dashes[place % dashes.length] };
    });
    const chart = this.chart("score", $("score"), (caption) => {
      caption.replaceChildren(h("b", { text: "Score / threshold" }), h("span", { class: "unit legend" }), h("span", { class: "now" }), h("span", { class: "aside" }));
    });
    const legend = chart.figure.querySelector(".legend");
    if (legend.dataset.of !== `${names}|${this.detector}`) {
      legend.dataset.of = `${names}|${this.detector}`;
      legend.replaceChildren(
        ...lines.toReversed().map((line) => {
          const sample = h("i");
          sample.style.borderTopColor = `var(--${line.colour})`;
          sample.style.borderTopStyle = line.dash.length ? (line.dash[0] > 3 ? "dashed" : "dotted") : "solid";
          return h("span", {}, sample, shorter(line.name, names));
        }),
      );
    }
    const main = lines.at(-1);
    const now = main.values.at(-1);
    chart.readout = (row, at) => {
      const parts = lines.toReversed().map((line) => [line.name, line.values[nearest(line.at, at)]]);
      return [`${clock(at)}: ${parts.map(([name, value]) => `${shorter(name, names)} ${ratioOf(value)}`).join(", ")}`, false];
    };
    chart.summary = "An alert opens when a score stays above 1";
    chart.draw({ ...this.window, at: main.at, lines, spans: this.spans, log: true, now: ratioOf(now) });
    const over = main.values.filter((value) => value !== null && value >= 1).length;
    chart.canvas.setAttribute("aria-label", `Score over threshold by ${this.detector}: now ${ratioOf(now)}; above the threshold in ${over} of the last ${plural(main.values.length, "reading")}.`);
  }

  drawSignals(held) {
    const names = this.signals();
    const at = held.at_ms;
    keyed(
      $("signals"),
      names,
      (name) => name,
      () => h("figure"),
      (figure, name) => {
        const unit = unitOf(this.said.units[name]);
        const chart = this.chart(`signal ${name}`, figure, (caption) => {
          caption.replaceChildren(h("b", { text: words(name) }), h("span", { class: "unit", text: unit ? `[${unit}]` : "" }), h("span", { class: "now" }), h("span", { class: "aside" }));
        });
        const source = held.signals.includes(name) ? held : [...this.rows.values()].find((rows) => rows.signals.includes(name));
        const column = source.signals.indexOf(name);
        const values = source.values[column];
        const band = source === held && held.low ? { low: held.low[column], high: held.high[column] } : null;
        const expected = source === held && held.expected ? held.expected[column] : null;
        const lines = [{ values, colour: "series", width: 1.5 }];
        if (expected) lines.unshift({ values: expected, colour: "expected", width: 1.1, dash: [4, 3] });
        const times = source === held ? at : source.at_ms;
        const outside = (row) => band !== null && values[row] !== null && band.low[row] !== null && (values[row] < band.low[row] || values[row] > band.high[row]);
        const said = (row) => {
          if (band && band.low[row] !== null) return `expected ${number(band.low[row])} to ${measured(band.high[row], unit)}`;
          if (expected && expected[row] !== null) return `expected ${measured(expected[row], unit)}`;
          return "";
        };
        const last = times.length - 1;
        chart.readout = (row) => [`${clock(times[row])}: ${measured(values[row], unit)}${said(row) && `, ${said(row)}`}`, outside(row)];
        chart.summary = said(last) + (values[last] === null ? " no value now" : "");
        chart.out = outside(last);
        chart.draw({ ...this.window, at: times, lines, band, spans: this.spans, now: number(values[last]) });
        const first = Math.max(times.findIndex((ms) => ms >= this.window.from), 0);
        const seen = values.slice(first).filter((value) => value !== null);
        let out = 0;
        for (let row = first; row < values.length; row++) out += outside(row);
        chart.canvas.setAttribute(
          "aria-label",
          `${words(name)}${unit && ` in ${unit}`}, ${clock(this.window.from)} to ${clock(this.window.to)}: now ${number(values[last])}${said(last) && `, ${said(last)}`}` +
            (seen.length ? `; between ${number(seen.reduce((a, b) => Math.min(a, b)))} and ${number(seen.reduce((a, b) => Math.max(a, b)))}` : "") +
            (band ? `; outside the expected band in ${out} of ${plural(values.length - first, "reading")}` : "") +
            ".",
        );
      },
    );
  }

  /** Signals in a steady order: the causes of the open alerts first. */
  signals() {
    const all = [...new Set([...this.rows.values()].flatMap((held) => held.signals))];
    const open = this.open();
    const causes = [...new Set(open.flatMap((alert) => alert.causes.slice(0, 3).map((cause) => cause.signal)))];
    return [...causes.filter((name) => all.includes(name)), ...all.filter((name) => !causes.includes(name))];
  }

  drawShares(held) {
    const row = this.cursor === null ? held.at_ms.length - 1 : nearest(held.at_ms, this.cursor);
    const ratio = held.score[row] === null ? null : held.score[row] / held.threshold[row];
    say($("shares-when"), `${this.cursor === null ? "now" : "then"}, ${clock(held.at_ms[row])}: score ${ratioOf(ratio)} × threshold`);
    const mine = this.signals().filter((name) => held.signals.includes(name));
    const parts = mine.map((name) => ({ name, share: held.share[held.signals.indexOf(name)][row] ?? 0 }));
    keyed(
      $("shares"),
      parts,
      (part) => part.name,
      (part) => h("li", {}, h("span", { text: words(part.name) }), h("span", { class: "n" }), h("span", { class: "track", "aria-hidden": "true" }, h("i"))),
      (item, part) => {
        say(item.children[1], percent(part.share));
        item.querySelector("i").style.width = `${part.share * 100}%`;
      },
    );
  }

  drawHistory() {
    const { alerts, more_alerts: more, at_ms: nowMs } = this.said;
    say($("history-count"), alerts.length ? String(alerts.length + more) : "");
    $("history").parentElement.hidden = !alerts.length;
    $("no-history").hidden = alerts.length > 0;
    keyed(
      $("history").tBodies[0],
      alerts,
      (alert) => alert.id,
      () => h("tr", {}, ...Array.from({ length: 7 }, () => h("td"))),
      (row, alert) => {
        updateLabels(row.lastElementChild, alert, this.said.acts);
        const line = `${alert.sequence}`;
        if (row.dataset.line === line) return;
        row.dataset.line = line;
        const opened = Date.parse(alert.opened);
        const [when, severity, lasted, detector, peak, why] = row.children;
        say(when, moment(opened, nowMs));
        severity.replaceChildren(h("span", { class: "state", "data-state": alert.severity }, shape(alert.severity), STATES[alert.severity]));
        say(lasted, `${duration(Date.parse(alert.resolved ?? alert.last_seen) - opened)}${alert.state === "resolved" ? "" : ", open"}`);
        say(detector, alert.detector);
        peak.className = "n";
        say(peak, `${ratioOf(alert.peak / alert.threshold)}\u00a0×`);
        why.className = "wrap";
        say(why, causesOf(alert.causes) + (verdictOf(alert.verdict) ? ` (${verdictOf(alert.verdict)})` : ""));
      },
    );
  }

  drawTable(held) {
    const first = Math.max(held.at_ms.length - TABLE_ROWS, 0);
    const heads = ["Time", "Score / threshold", ...held.signals.map((name) => `${words(name)}${this.said.units[name] ? ` [${unitOf(this.said.units[name])}]` : ""}`)];
    $("rows").tHead.replaceChildren(h("tr", {}, ...heads.map((text, place) => h("th", { scope: "col", class: place ? "n" : null, text }))));
    const rows = [];
    for (let row = held.at_ms.length - 1; row >= first; row--) {
      const ratio = held.score[row] === null ? null : held.score[row] / held.threshold[row];
      rows.push(h("tr", {}, h("td", { text: clock(held.at_ms[row]) }), h("td", { class: "n", text: ratioOf(ratio) }), ...held.values.map((column) => h("td", { class: "n", text: number(column[row]) }))));
    }
    $("rows").tBodies[0].replaceChildren(...rows);
  }

  /** The chart in a figure, made when it is first asked for. */
  chart(key, figure, caption) {
    let chart = this.charts.get(key);
    if (!chart || chart.figure !== figure) {
      const canvas = h("canvas", { role: "img", tabindex: "0" });
      figure.replaceChildren(h("figcaption"), h("div", { class: "plot" }, canvas));
      chart = new Reading(canvas, figure);
      caption(figure.querySelector("figcaption"));
      canvas.addEventListener("pointermove", (event) => this.point(chart.timeAt(event.offsetX), chart));
      canvas.addEventListener("pointerleave", () => this.point(null, chart));
      canvas.addEventListener("blur", () => this.point(null, chart));
      canvas.addEventListener("keydown", (event) => this.step_(event, chart));
      this.charts.set(key, chart);
    }
    return chart;
  }

  /** Move the cursor with the arrow keys, row by row (ten with Shift). */
  step_(event, chart) {
    const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") this.point(null, chart);
    if (!way) return;
    event.preventDefault();
    const at = chart.said.at;
    const row = nearest(at, this.cursor ?? at.at(-1)) + way * (event.shiftKey ? 10 : 1);
    chart.figure.querySelector(".aside").setAttribute("aria-live", "polite");
    this.point(at[Math.min(Math.max(row, 0), at.length - 1)], chart);
  }

  point(ms) {
    if (this.cursor === ms) return;
    this.cursor = ms;
    for (const chart of this.charts.values()) chart.point(ms);
    const held = this.rows.get(this.detector);
    if (held?.at_ms.length) this.drawShares(held);
  }
}

/** A chart with what its caption says: the newest value, or what is under the cursor. */
class Reading extends Chart {
  constructor(canvas, figure) {
    super(canvas);
    this.figure = figure;
    this.readout = null;
    this.summary = "";
    this.out = false;
  }

  draw(said) {
    super.draw(said);
    say(this.figure.querySelector(".now"), said.now);
    this.caption();
  }

  point(ms) {
    super.point(ms);
    this.caption();
  }

  caption() {
    const aside = this.figure.querySelector(".aside");
    const rows = this.said?.at.length;
    const [text, out] = this.cursor !== null && rows ? this.readout(nearest(this.said.at, this.cursor), this.cursor) : [this.summary, this.out];
    const line = `${text}|${out}`;
    if (aside.dataset.line === line) return;
    aside.dataset.line = line;
    aside.replaceChildren(text, ...(out ? [" ", h("span", { "data-out": true, text: "▲ outside" })] : []));
  }
}

/** The row of ascending times that is nearest to `ms`. */
function nearest(at, ms) {
  let low = 0;
  let high = at.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (at[middle] < ms) low = middle + 1;
    else high = middle;
  }
  return low > 0 && ms - at[low - 1] < at[low] - ms ? low - 1 : low;
}

/** A detector's name without what all of them begin with. */
function shorter(name, all) {
  const head = name.slice(0, name.lastIndexOf("-") + 1);
  return head && all.length > 1 && all.every((other) => other.startsWith(head)) ? name.slice(head.length) : name;
}
