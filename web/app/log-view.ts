import { GapReason } from "../sdk";
import type { Entry, EventEntry, GapEntry, RewindEntry, RoomLog, StoredSend } from "../sdk";
import { button, el, setAvatar, setChildren } from "./dom";

/** Messages of one sender closer than this stand together. */
const togetherMs = 5 * 60_000;

/** The element of a message that is not sent yet, and why it waits. */
interface Pending {
  readonly item: HTMLElement;
  readonly foot: HTMLElement;
  waitsFor: string;
}

/** What a person can do in the log. */
export interface LogActions {
  /** Settles when it is done, or cannot be. */
  loadGap(gap: GapEntry): Promise<void>;
  /** Why a message waits; empty if nothing is known. */
  waitsFor(clientId: string): string;
  retry(clientId: string): void;
  drop(clientId: string): void;
}

/** Draws a room's lines. An entry never changes, so its element is made once. */
export class LogView {
  readonly #elements = new WeakMap<Entry, HTMLElement>();
  /** By the entry a day begins with. */
  readonly #days = new WeakMap<Entry, HTMLElement>();
  readonly #pendingElements = new WeakMap<StoredSend, Pending>();

  constructor(
    readonly list: HTMLElement,
    readonly pendingList: HTMLElement,
    readonly user: string,
    readonly actions: LogActions,
  ) {}

  draw(log: RoomLog, pending: readonly StoredSend[]): void {
    const nodes: HTMLElement[] = [];
    let previous: Entry | undefined;
    let day = "";
    for (const entry of log.entries) {
      if ("time" in entry) {
        const its = dayOf(entry.time);
        if (its !== day) {
          nodes.push(this.#day(entry, its));
          previous = undefined;
        }
        day = its;
      }
      const element = this.#element(entry);
      element.classList.toggle("follows", follows(previous, entry));
      nodes.push(element);
      previous = entry;
    }
    setChildren(this.list, nodes);
    setChildren(this.pendingList, pending.map((send) => this.#pending(send)));
  }

  #element(entry: Entry): HTMLElement {
    let element = this.#elements.get(entry);
    if (!element) {
      element = this.#make(entry);
      this.#elements.set(entry, element);
    }
    return element;
  }

  #make(entry: Entry): HTMLElement {
    switch (entry.kind) {
      case "message":
        return this.#message(entry);
      case "gap":
        return this.#gap(entry);
      case "rewind":
        return rewindLine(entry);
      default:
        return noteLine(entry);
    }
  }

  #message(entry: EventEntry): HTMLElement {
    const item = messageItem(entry.sender, entry.text, entry.time, entry.replayed);
    item.classList.toggle("mine", entry.sender === this.user);
    item.dataset["kind"] = "message";
    item.dataset["offset"] = String(entry.offset);
    return item;
  }

  #gap(entry: GapEntry): HTMLElement {
    const item = el("li", "note gap", gapText(entry));
    item.dataset["kind"] = "gap";
    item.dataset["range"] = `${entry.first}-${entry.last}`;
    if (entry.recoverable) {
      const load = button("Show them", () => {
        load.disabled = true;
        void this.actions.loadGap(entry).then(() => (load.disabled = false));
      });
      item.append(load);
    }
    return item;
  }

  #day(entry: Entry, day: string): HTMLElement {
    let element = this.#days.get(entry);
    if (!element) {
      element = el("li", "day", day);
      this.#days.set(entry, element);
    }
    return element;
  }

  #pending(send: StoredSend): HTMLElement {
    let pending = this.#pendingElements.get(send);
    if (!pending) {
      const item = messageItem(this.user, send.text, send.time, false);
      item.classList.add("mine");
      item.dataset["kind"] = "pending";
      pending = { item, foot: this.#pendingFoot(send, item), waitsFor: "" };
      item.append(pending.foot);
      this.#pendingElements.set(send, pending);
    }
    const waitsFor = send.failed === undefined && send.offset === undefined ? this.actions.waitsFor(send.clientId) : "";
    if (waitsFor !== pending.waitsFor) {
      pending.waitsFor = waitsFor;
      pending.foot.textContent = waitsFor ? `Waiting: ${waitsFor}` : "Not sent yet";
    }
    return pending.item;
  }

  #pendingFoot(send: StoredSend, item: HTMLElement): HTMLElement {
    if (send.failed === undefined) return el("span", "foot", send.offset === undefined ? "Not sent yet" : "Sent");
    item.classList.add("failed");
    return el(
      "span",
      "foot",
      `Not sent: ${send.failed} `,
      button("Try again", () => this.actions.retry(send.clientId)),
      button("Discard", () => this.actions.drop(send.clientId)),
    );
  }
}

function messageItem(sender: string, text: string, time: number, replayed: boolean): HTMLElement {
  const avatar = el("span");
  setAvatar(avatar, sender);
  const when = el("time", "", timeFormat.format(time));
  when.dateTime = new Date(time).toISOString();
  when.title = fullFormat.format(time);
  const head = el("span", "head", el("span", "sender", sender), when);
  const item = el("li", "message", avatar, head, el("span", "text", text));
  if (replayed) {
    item.classList.add("replayed");
    head.append(replayedMark());
    item.title = `Replayed: came while you were away, ${fullFormat.format(time)}`;
  }
  return item;
}

function replayedMark(): HTMLElement {
  return el("span", "mark", "replayed");
}

function noteLine(entry: EventEntry): HTMLElement {
  const item = el("li", "note", noteText(entry), el("time", "", timeFormat.format(entry.time)));
  if (entry.replayed) item.append(replayedMark());
  item.dataset["kind"] = entry.kind;
  item.dataset["offset"] = String(entry.offset);
  return item;
}

function noteText(entry: EventEntry): string {
  switch (entry.kind) {
    case "joined":
      return `${entry.text} joined`;
    case "left":
      return `${entry.text} left`;
    case "invited":
      return `${entry.sender} invited ${entry.text}`;
    case "created":
      return `${entry.sender} created the room`;
    case "custom":
      return `${entry.sender}: ${entry.text}`;
    default:
      return `${entry.sender} did something that this page is too old to show`;
  }
}

function gapText({ first, last, reason, recoverable }: GapEntry): string {
  const count = last - first + 1n;
  const events = count === 1n ? "1 event" : `${count} events`;
  switch (reason) {
    case GapReason.RETENTION:
      return `${events} are missing here: the room does not keep them any more.`;
    case GapReason.REPLAY_LIMIT:
      return recoverable ? `${events} were too many to replay.` : `${events} are missing here.`;
    case GapReason.POSITION_UNKNOWN:
      return `${events} are not shown: neither this tab nor the server knew where you were.`;
    default:
      return `${events} are not shown here.`;
  }
}

function rewindLine({ dropped, offset }: RewindEntry): HTMLElement {
  const events = dropped === 1 ? "1 event" : `${dropped} events`;
  const lost = dropped > 0 ? `; ${events} shown here before are not part of it` : "";
  const item = el("li", "note rewind", `The server's log of this room was set back${lost}.`);
  item.dataset["kind"] = "rewind";
  item.dataset["to"] = String(offset);
  return item;
}

function follows(previous: Entry | undefined, entry: Entry): boolean {
  return (
    entry.kind === "message" &&
    previous?.kind === "message" &&
    previous.sender === entry.sender &&
    previous.replayed === entry.replayed &&
    entry.time - previous.time < togetherMs
  );
}

const timeFormat = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const fullFormat = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });
const dayFormat = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long", year: "numeric" });

function dayOf(time: number): string {
  return dayFormat.format(time);
}
