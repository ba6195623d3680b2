// What an operator does about an alert: buttons on its card, who is acting, and the token that lets them.

import { h, keyed, say } from "./dom.js";
import { moment, words } from "./format.js";

const $ = (id) => document.getElementById(id);
const SHELF_S = 3600;
const DEEDS = {
  ack: { text: "Acknowledge", done: "Acknowledged", shown: (alert) => !alert.acknowledged },
  shelve: { text: "Shelve 1 h", done: "Shelved for an hour", shown: (alert) => !alert.shelved },
  unshelve: { text: "Unshelve", done: "Off the shelf", shown: (alert) => Boolean(alert.shelved) },
  resolve: { text: "Resolve", done: "Resolved", shown: () => true },
  false_alarm: { text: "False alarm", done: "Labelled a false alarm", shown: () => true, label: true },
  true: { text: "True fault", done: "Labelled a fault", shown: () => true, label: true },
};
const LIFE = {
  open: "opened", resolved: "back to normal", major: "became major", critical: "became critical", re_alarm: "alarmed again",
  ack: "acknowledged", shelve: "shelved", unshelve: "taken off the shelf", shelf_over: "shelf is over", resolve: "resolved",
  true: "labelled a fault", false_alarm: "labelled a false alarm",
};
let token = sessionStorage.getItem("headrace-token") ?? "";
let again = () => {};

/** Set the page up for acting; `look` asks the worker anew. */
export function setUp(look) {
  again = look;
  $("by").value = localStorage.getItem("headrace-by") ?? "";
  $("sign").addEventListener("submit", (event) => {
    event.preventDefault();
    token = $("token").value;
    sessionStorage.setItem("headrace-token", token);
    localStorage.setItem("headrace-by", $("by").value.trim());
    $("token").value = "";
    tell(`Acting as ${who()}`);
    again();
    $("asset-name").focus();
  });
  $("sign-off").addEventListener("click", () => {
    token = "";
    sessionStorage.removeItem("headrace-token");
    tell("Only looking");
    again();
  });
}

const who = () => localStorage.getItem("headrace-by") ?? "";
const may = (acts) => Boolean(acts && token && who());

/** Show who is acting, and where to say so. */
export function drawSign(acts) {
  $("acting").hidden = !acts;
  $("sign").hidden = may(acts);
  $("signed").hidden = !may(acts);
  say($("signed-as"), `Acting as ${who()}`);
}

/** The part of an alert's card that is about what was done, and can be. */
export const deedsOf = () => h("div", { class: "deeds" }, h("p", { class: "standing" }), h("ol", { class: "life" }), h("div", { class: "buttons", role: "group" }));

/** Bring it up to date. */
export function updateDeeds(part, alert, nowMs, acts) {
  const [standing, life, buttons] = part.children;
  say(standing, standingOf(alert, nowMs));
  standing.hidden = !standing.textContent;
  const events = (alert.life ?? []).filter((event) => event.what !== "open" || event.by);
  keyed(life, events.map((event, place) => ({ ...event, place })), (event) => String(event.place), () => h("li"), (item, event) => {
    say(item, `${moment(Date.parse(event.at), nowMs)}: ${LIFE[event.what] ?? words(event.what)}${event.by ? ` by ${event.by}` : ""}${event.comment ? `: ${event.comment}` : ""}`);
  });
  life.hidden = !events.length;
  buttons.hidden = !may(acts);
  buttons.setAttribute("aria-label", `Act on the alert of ${alert.detector}`);
  const shown = Object.entries(DEEDS).filter(([, deed]) => deed.shown(alert) && !(deed.label && alert.detector === "stale"));
  keyed(buttons, shown, ([name]) => name, buttonOf, (button) => {
    button.alert = alert;
  });
}

/** Buttons to say what an alert was that is over. */
export function updateLabels(cell, alert, acts) {
  const shown = may(acts) && alert.state === "resolved" && alert.detector !== "stale" ? Object.entries(DEEDS).filter(([, deed]) => deed.label) : [];
  cell.className = "labels";
  keyed(cell, shown, ([name]) => name, buttonOf, (button) => {
    button.alert = alert;
    button.setAttribute("aria-label", `${button.textContent}: ${alert.detector}, ${alert.opened}`);
  });
}

function buttonOf([name, deed]) {
  const button = h("button", { type: "button", class: "plain", "data-deed": name, text: deed.text });
  button.addEventListener("click", () => act(name, button.alert, button));
  return button;
}

/** What was done, in a line. */
export function standingOf(alert, nowMs) {
  const parts = [];
  if (alert.acknowledged) parts.push(`Acknowledged by ${alert.acknowledged.by}`);
  if (alert.shelved) parts.push(`shelved until ${moment(Date.parse(alert.shelved.until), nowMs)} by ${alert.shelved.by}`);
  if (alert.suppressed) parts.push(`nobody is told: ${alert.suppressed}`);
  if (alert.re_alarm) parts.push("alarmed again: nobody has acknowledged it");
  if (alert.factor && alert.factor !== 1) parts.push(`threshold moved to ${alert.factor.toFixed(2)} times`);
  const line = parts.join("; ");
  return line && `${line[0].toUpperCase()}${line.slice(1)}.`;
}

async function act(name, alert, button) {
  const deed = DEEDS[name];
  button.disabled = true;
  const body = { action: name, asset: alert.asset, alert: alert.id, by: who(), comment: $("comment").value.trim() };
  if (name === "shelve") body.for_s = SHELF_S;
  try {
    const answer = await fetch("/api/act", {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Headrace-Token": token },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(15000),
    });
    if (answer.status === 401) {
      token = "";
      sessionStorage.removeItem("headrace-token");
    }
    tell(answer.ok ? `${deed.done}: ${alert.asset}, ${alert.detector}.` : `Not done: ${await answer.text()}`);
    if (answer.ok) $("comment").value = "";
  } catch {
    tell("Not done: the worker does not answer.");
  }
  button.disabled = false;
  again();
}

function tell(text) {
  $("acted").hidden = false;
  say($("acted"), text);
}
