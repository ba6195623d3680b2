// A time chart on a canvas: lines, a band, spans of alerts, a threshold, a cursor. Colours are the style sheet's.

import { clock, dayOf, number } from "./format.js";

const LEFT = 52;
const RIGHT = 10;
const TOP = 8;
const BOTTOM = 20;
const STEPS_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800];
const FLOOR = 0.05; // of the logarithmic scale

/** Ticks of the axis of time: at round local times, no closer than `most` allow. */
function timeTicks(from, to, most) {
  const step = 1000 * (STEPS_S.find((s) => (to - from) / (1000 * s) <= most) ?? STEPS_S.at(-1));
  const offset = new Date(to).getTimezoneOffset() * 60000;
  const ticks = [];
  for (let at = Math.ceil((from - offset) / step) * step + offset; at <= to; at += step) ticks.push(at);
  return { step, ticks };
}

/** About `most` round numbers between low and high. */
function numberTicks(low, high, most) {
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5].find((factor) => factor * power >= rough) ?? 10);
  const ticks = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-9; at += step) ticks.push(Math.abs(at) < step * 1e-9 ? 0 : at);
  return { step, ticks };
}

/** What was measured decides the scale; a band may widen it by half, as it is very wide after a gap. */
export function scaleOf(lines, band, first) {
  let low = Infinity;
  let high = -Infinity;
  for (const line of lines) {
    for (let row = first; row < line.length; row++) {
      const value = line[row];
      if (value === null) continue;
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  if (low > high) return null;
  const room = (high - low) / 2 || Math.abs(high) * 0.02 || 1;
  let bandLow = low;
  let bandHigh = high;
  if (band) {
    for (let row = first; row < band.low.length; row++) {
      if (band.low[row] !== null && band.low[row] < bandLow) bandLow = band.low[row];
      if (band.high[row] !== null && band.high[row] > bandHigh) bandHigh = band.high[row];
    }
  }
  low = Math.max(bandLow, low - room);
  high = Math.min(bandHigh, high + room);
  const pad = (high - low) * 0.08 || room;
  return { low: low - pad, high: high + pad };
}

export class Chart {
  constructor(canvas) {
    this.canvas = canvas;
    this.said = null;
    this.cursor = null;
    new ResizeObserver(() => this.paint()).observe(canvas);
  }

  /**
   * What to draw:
   * from, to   epoch milliseconds
   * at         times of the rows; lines [{values, colour, width, dash}] and band {low, high} have a number a row
   * gap        milliseconds between rows above which a line is broken
   * spans      [{from, to, state}]
   * log        a logarithmic scale with the threshold at 1
   */
  draw(said) {
    this.said = said;
    this.paint();
  }

  point(ms) {
    this.cursor = ms;
    this.paint();
  }

  /** The time under a place of the canvas, in CSS pixels from its left. */
  timeAt(x) {
    if (!this.said) return null;
    const width = this.canvas.clientWidth - LEFT - RIGHT;
    const share = Math.min(Math.max((x - LEFT) / width, 0), 1);
    return this.said.from + share * (this.said.to - this.said.from);
  }

  paint() {
    const { canvas, said } = this;
    const width = canvas.clientWidth;
    const height = canvas.clientHeight;
    if (!said || !width || !height) return;
    const ratio = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const style = getComputedStyle(canvas);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.font = `11.5px ${style.fontFamily}`;
    const right = width - RIGHT;
    const bottom = height - BOTTOM;
    const x = (ms) => LEFT + ((ms - said.from) / (said.to - said.from || 1)) * (right - LEFT);
    const first = Math.max(said.at.findIndex((at) => at >= said.from) - 1, 0);
    const scale = said.log ? this.logScale(said, first) : scaleOf(said.lines.map((line) => line.values), said.band, first);
    const size = (value) => (said.log ? Math.log(Math.max(value, FLOOR)) : value);
    const low = scale ? size(scale.low) : 0;
    const high = scale ? size(scale.high) : 1;
    const y = (value) => bottom - ((size(value) - low) / (high - low)) * (bottom - TOP);

    for (const span of said.spans) {
      const start = Math.max(x(span.from), LEFT);
      const stop = Math.min(x(span.to), right);
      if (stop < LEFT || start > right) continue;
      pen.fillStyle = colour(`${span.state}-soft`);
      pen.fillRect(start, TOP, Math.max(stop - start, 1.5), bottom - TOP);
      pen.fillStyle = colour(span.state);
      pen.fillRect(start, TOP - 4, Math.max(stop - start, 1.5), 3);
    }

    pen.strokeStyle = colour("grid");
    pen.fillStyle = colour("muted");
    pen.lineWidth = 1;
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    if (scale) {
      for (const [at, text] of this.valueTicks(said, scale, bottom)) {
        const place = Math.round(y(at)) + 0.5;
        pen.beginPath();
        pen.moveTo(LEFT, place);
        pen.lineTo(right, place);
        pen.stroke();
        pen.fillText(text, LEFT - 7, place);
      }
    }
    const { step, ticks } = timeTicks(said.from, said.to, Math.max(2, Math.floor((right - LEFT) / 84)));
    pen.textBaseline = "alphabetic";
    for (const at of ticks) {
      const place = Math.round(x(at)) + 0.5;
      pen.beginPath();
      pen.moveTo(place, TOP);
      pen.lineTo(place, bottom + 4);
      pen.stroke();
      const text = step >= 86400000 ? dayOf(at) : clock(at, step < 60000);
      const half = pen.measureText(text).width / 2;
      pen.textAlign = place + half > width ? "right" : place - half < 0 ? "left" : "center";
      pen.fillText(text, pen.textAlign === "right" ? width - 1 : place, height - 4);
    }

    pen.save();
    pen.beginPath();
    pen.rect(LEFT, TOP - 4, right - LEFT, bottom - TOP + 4);
    pen.clip();
    if (said.band && scale) {
      pen.fillStyle = colour("band");
      for (const [start, stop] of runs(said, first, said.band.low)) {
        pen.beginPath();
        for (let row = start; row < stop; row++) pen.lineTo(x(said.at[row]), y(said.band.high[row]));
        for (let row = stop - 1; row >= start; row--) pen.lineTo(x(said.at[row]), y(said.band.low[row]));
        pen.fill();
      }
    }
    if (said.log) {
      pen.strokeStyle = colour("critical");
      pen.lineWidth = 1.4;
      pen.setLineDash([5, 4]);
      pen.beginPath();
      pen.moveTo(LEFT, y(1));
      pen.lineTo(right, y(1));
      pen.stroke();
      pen.setLineDash([]);
    }
    pen.lineJoin = "round";
    for (const line of scale ? said.lines : []) {
      pen.strokeStyle = colour(line.colour);
      pen.lineWidth = line.width ?? 1.4;
      pen.setLineDash(line.dash ?? []);
      for (const [start, stop] of runs(line.at ? { ...said, at: line.at } : said, line.at ? 0 : first, line.values)) {
        const at = line.at ?? said.at;
        pen.beginPath();
        for (let row = start; row < stop; row++) pen.lineTo(x(at[row]), y(line.values[row]));
        if (stop - start === 1) pen.lineTo(x(at[start]) + 1.5, y(line.values[start]));
        pen.stroke();
      }
    }
    pen.setLineDash([]);
    if (this.cursor !== null && this.cursor >= said.from && this.cursor <= said.to) {
      pen.strokeStyle = colour("muted");
      pen.lineWidth = 1;
      const place = Math.round(x(this.cursor)) + 0.5;
      pen.beginPath();
      pen.moveTo(place, TOP);
      pen.lineTo(place, bottom);
      pen.stroke();
    }
    pen.restore();
    if (!scale) {
      pen.textAlign = "center";
      pen.textBaseline = "middle";
      pen.fillText("no usable value in this time", (LEFT + right) / 2, (TOP + bottom) / 2);
    }
  }

  logScale(said) {
    let high = 2;
    for (const line of said.lines) for (const value of line.values) if (value !== null && value > high) high = value;
    return { low: FLOOR, high: high * 1.3 };
  }

  valueTicks(said, scale, bottom) {
    if (said.log) return [0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000].filter((at) => at <= scale.high).map((at) => [at, `${at}`]);
    const { step, ticks } = numberTicks(scale.low, scale.high, Math.max(2, Math.floor((bottom - TOP) / 34)));
    const digits = Math.min(Math.max(0, -Math.floor(Math.log10(step) + 1e-9)), 6);
    const large = Math.max(Math.abs(scale.low), Math.abs(scale.high)) >= 1e7;
    return ticks.map((at) => [at, large ? number(at) : at.toFixed(digits)]);
  }
}

/** Stretches of rows, [start, stop), that have a value and no gap between them. */
function* runs(said, first, values) {
  let start = -1;
  for (let row = first; row <= said.at.length; row++) {
    const there = row < said.at.length && values[row] !== null && values[row] !== undefined;
    const broken = start >= 0 && there && said.at[row] - said.at[row - 1] > said.gap;
    if (start >= 0 && (!there || broken)) {
      yield [start, row];
      start = -1;
    }
    if (there && start < 0) start = row;
  }
}
