// The page's course: which asset the address names, what to ask for and when, and what to say when no answer comes.

import { drawSign, setUp } from "./act.js";
import { AssetView } from "./asset.js";
import { h, say } from "./dom.js";
import { STATES, causesOf, duration, plural } from "./format.js";
import { firstOf } from "./incidents.js";
import { drawOverview } from "./overview.js";

const $ = (id) => document.getElementById(id);
const OVERVIEW_MS = 2000;
const ASSET_MS = 1000;
const PATIENCE_MS = 8000;
const QUIET_S = 60;

let view = null;
let filter = "";
let held = false;
let answeredAt = 0;
let failedSince = 0;
let rate = 0;
let known = null; // ids of the alerts that were open at the last answer

async function ask(path, parameters) {
  const answer = await fetch(`${path}?${new URLSearchParams(parameters)}`, { signal: AbortSignal.timeout(PATIENCE_MS) });
  if (answer.status === 404) return null;
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  const said = await answer.json();
  const members = (said.incidents ?? []).flatMap((incident) => incident.alerts);
  for (const alert of [...said.alerts, ...members]) alert.causes ??= []; // what is empty is left out of a record
  return said;
}

/** Call `work` again and again with a pause between, but not while the tab is hidden or the page is held. */
function again(work, pauseMs) {
  let timer = 0;
  let running = false;
  let wanted = false;
  const run = async () => {
    clearTimeout(timer);
    if (running) {
      wanted = true;
      return;
    }
    if (!document.hidden && !held) {
      running = true;
      try {
        await work();
        answeredAt = Date.now();
        failedSince = 0;
      } catch {
        failedSince ||= Date.now();
      }
      running = false;
      drawLink();
    }
    timer = setTimeout(run, wanted ? 0 : pauseMs);
    wanted = false;
  };
  return run;
}

const lookAtAll = again(async () => {
  const said = await ask("/api/overview", { query: $("query").value, state: filter });
  announce(said.alerts, said.incidents);
  drawOverview(said, { chosen: view?.name ?? null, filter, onFilter: choose });
  drawTrouble(said);
  const open = said.alerts.length + said.more_alerts;
  say($("site"), said.site);
  document.title = `${open ? `(${open}) ` : ""}${view ? `${view.name} · ` : ""}Headrace${said.site ? ` ${said.site}` : ""}`;
}, OVERVIEW_MS);

const lookAtOne = again(async () => {
  const mine = view;
  if (!mine) return;
  const said = await ask("/api/asset", { name: mine.name, since_ms: mine.since });
  if (mine !== view) return;
  drawSign(said?.acts);
  if (said) mine.take(said);
  else mine.gone();
}, ASSET_MS);

/** Tell a screen reader of alerts that have opened since the last answer; those that were open at first are on the page. */
function announce(alerts, incidents) {
  const fresh = known === null ? [] : alerts.filter((alert) => !known.has(alert.id));
  known = new Set(alerts.map((alert) => alert.id));
  if (!fresh.length) return;
  const [worst] = fresh;
  const more = fresh.length > 1 ? `, and ${plural(fresh.length - 1, "other alert")}` : "";
  const whole = incidents.find((incident) => incident.alerts.some((alert) => alert.id === worst.id));
  const part = whole ? ` Part of an incident of line ${whole.line}: look first at ${firstOf(whole)}.` : "";
  const text = `New ${STATES[worst.severity]} alert: ${worst.asset}, ${causesOf(worst.causes, 2)}${more}.${part}`;
  $("announce").append(h("p", { text }));
  while ($("announce").childElementCount > 5) $("announce").firstElementChild.remove();
}

function drawTrouble(said) {
  const reasons = [...said.worker.reasons];
  if (said.quiet_s !== null && said.quiet_s > QUIET_S) reasons.push(`no reading has come for ${duration(said.quiet_s * 1000)}`);
  if (said.worker.lag > 10000 && said.readings_per_s > 0) reasons.push(`${said.worker.lag.toLocaleString("en-GB")} records wait: what is shown is behind`);
  $("trouble").hidden = !reasons.length;
  say($("trouble"), reasons.length ? `This worker: ${reasons.join("; ")}.` : "");
  rate = said.readings_per_s;
}

function drawLink() {
  const lost = failedSince && Date.now() - failedSince > 3000;
  const state = held ? "held" : lost ? "lost" : answeredAt ? "live" : "waiting";
  $("link").dataset.link = state;
  const since = answeredAt ? ` for ${duration(Date.now() - answeredAt)}` : "";
  const pace = rate >= 10 ? Math.round(rate).toLocaleString("en-GB") : rate;
  say($("link-text"), { held: "Held", lost: `No answer from the worker${since}`, live: `Live, ${pace} readings/s`, waiting: "Connecting" }[state]);
}

function choose(state) {
  filter = filter === state ? "" : state;
  lookAtAll();
}

function route(event) {
  const found = /^#\/asset\/(.+)$/.exec(location.hash);
  let name = null;
  try {
    name = found && decodeURIComponent(found[1]);
  } catch {
    name = null; // an address that nobody made: show all
  }
  const before = view?.name ?? null;
  document.querySelector("main").toggleAttribute("data-asset", Boolean(name));
  $("detail").hidden = !name;
  if (name === before) return;
  view = name ? new AssetView(name) : null;
  if (event && name) {
    window.scrollTo(0, 0);
    $("asset-name").focus({ preventScroll: true });
  } else if (event && before) {
    const links = [...document.querySelectorAll("#incidents a, #alerts a, #assets a")];
    (links.find((link) => link.getAttribute("href") === `#/asset/${encodeURIComponent(before)}`) ?? $("alerts-heading")).focus();
  }
  lookAtAll();
  lookAtOne();
}

$("hold").addEventListener("click", () => {
  held = !held;
  $("hold").setAttribute("aria-pressed", String(held));
  drawLink();
  if (!held) {
    lookAtAll();
    lookAtOne();
  }
});
$("query").addEventListener("input", () => lookAtAll());
$("table-details").addEventListener("toggle", () => view?.said && view.draw());
$("controls").addEventListener("submit", (event) => event.preventDefault());
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  $("alerts-heading").focus();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) {
    lookAtAll();
    lookAtOne();
  }
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => view?.said && view.draw());
window.addEventListener("hashchange", route);
say($("zone"), `Times are in ${Intl.DateTimeFormat().resolvedOptions().timeZone}.`);
setUp(() => {
  lookAtAll();
  lookAtOne();
});
route(null);
lookAtAll();
