import type { State } from "../sdk";
import { byId, setText } from "./dom";

/** Draws the connection's state, and the buttons that change it. */
export class StatusView {
  readonly #label = byId("state");
  readonly #toggle = byId<HTMLButtonElement>("toggle");
  readonly #retry = byId("retry");
  readonly #banner = byId("banner");
  readonly #bannerText = byId("banner-text");

  draw(state: State): void {
    this.#label.dataset["state"] = state.name;
    setText(this.#label, labelOf(state));
    this.#label.title = state.name === "waiting" ? state.error : "";
    const stopped = state.name === "idle" || state.name === "closed";
    setText(this.#toggle, stopped ? "Connect" : "Disconnect");
    this.#retry.hidden = state.name !== "waiting";
    this.#banner.hidden = state.name !== "closed";
    setText(this.#bannerText, state.name === "closed" ? bannerOf(state) : "");
  }
}

function labelOf(state: State): string {
  switch (state.name) {
    case "idle":
      return "Disconnected";
    case "connecting":
      return "Connecting…";
    case "replaying":
      return state.toReplay > 0 ? `Catching up, ${state.toReplay} to replay…` : "Catching up…";
    case "live":
      return state.replayed > 0 ? `Live, ${state.replayed} replayed` : "Live";
    case "waiting": {
      const seconds = Math.max(0, Math.ceil((state.retryAt - Date.now()) / 1000));
      return seconds > 0 ? `Reconnecting in ${seconds} s` : "Reconnecting…";
    }
    case "closed":
      return "Stopped";
  }
}

function bannerOf(state: State & { name: "closed" }): string {
  switch (state.reason) {
    case "FENCED":
      return `${state.message} Connect continues here in a copy.`;
    case "RESUME_KEY_NOT_YOURS":
      return "This session belongs to somebody else. Start over to begin a new one.";
    default:
      return `The server refused: ${state.message}`;
  }
}
