// Moves WebSockets of the `ws` library to another worker when this one leaves: their clients notice nothing.
//
//   const { moveWebSockets } = require('./clusterd-ws');
//   moveWebSockets(wss, {
//     onHandover: (ws) => state,                 // this worker leaves: what the next one has to know, as JSON; undefined: not now
//     onTakeover: (ws, state, request) => {},    // this worker has the connection from now on
//   });
//
// Call it before the server listens. Without clusterd it does nothing. docs/moves.md tells what it does, and its limits.
'use strict';
const http = require('http');
const net = require('net');

const STATE_BYTES_MAX = 29 * 1024; // of all that goes along; clusterd takes a little more
const AGAIN_MS = 1000; // after nobody could take a connection
const DEFLATE = 'permessage-deflate';
const SERVICE_RESTART = Buffer.from([0x88, 0x02, 0x03, 0xf4]); // a close frame with code 1012

const send = process.send?.bind(process);
const servers = new Map(); // a function that adopts a connection, by name
const said = new Set();
let listens = false;

function sayOnce(text) {
  if (!said.has(text)) process.emitWarning(text, 'clusterd');
  said.add(text);
}

/// `name` tells several WebSocket servers of an app apart; by default it is the path. Returns whether connections move.
function moveWebSockets(wss, { onHandover, onTakeover, name = wss.options.path ?? '' }) {
  const moves = process[Symbol.for('clusterd.moves')];
  if (moves?.version !== 1) return false;
  const known = new Map(); // open WebSockets with what opened them

  function remember(ws, request, handshake) {
    const entry = { ws, request, handshake, again: 0, server: request.socket?.server };
    if (!canEverMove(ws)) return;
    known.set(ws, entry);
    ws.once('close', () => known.delete(ws));
  }

  // An own property: the server calls it for each request, or the app does.
  const handleUpgrade = wss.handleUpgrade;
  wss.handleUpgrade = function (request, socket, head, done) {
    return handleUpgrade.call(this, request, socket, head, (ws, ...rest) => {
      const { method, url, httpVersion, headers } = request;
      remember(ws, request, { method, url, httpVersion, headers, protocol: ws.protocol, deflate: deflateOf(ws)?.params });
      return done(ws, ...rest);
    });
  };

  /// Whether any may still move.
  function holds() {
    for (const { again } of known.values()) if (again !== Infinity) return true;
    return false;
  }

  /// Between two messages in both directions, with nothing left to write.
  function look() {
    if (wss._state > 0) return; // it closes: so does the app what it wants closed
    for (const entry of known.values()) {
      const { ws, server } = entry;
      if (moves.leaves(server) && Date.now() >= entry.again && isAtRest(ws)) handOver(entry);
    }
  }

  function handOver(entry) {
    const { ws, handshake } = entry;
    let data;
    let text;
    try {
      data = onHandover(ws);
      if (data === undefined) return;
      if (typeof data?.then === 'function') throw new TypeError('onHandover returned a promise');
      text = JSON.stringify({ name, handshake, data });
    } catch (error) {
      known.delete(ws);
      return sayOnce(`a WebSocket stays until it is closed: ${error.stack}`);
    }
    const socket = ws._socket;
    const state = JSON.parse(text);
    known.delete(ws);
    retire(ws);
    if (Buffer.byteLength(text) <= STATE_BYTES_MAX) {
      return moves.give(socket, state, (handle) => adopt(handle, state, Date.now() + AGAIN_MS));
    }
    sayOnce(`a WebSocket stays, because its state has more than ${STATE_BYTES_MAX} bytes`);
    const { _handle: handle } = socket;
    handle.readStop();
    socket._handle = null;
    socket.destroy();
    return adopt(handle, state, Infinity);
  }

  /// Nothing is heard of it from now on, and nothing sent on it.
  function retire(ws) {
    wss.clients?.delete(ws);
    ws._readyState = 3; // CLOSED
    ws.emit = () => false;
  }

  /// Makes a WebSocket of a connection and its state, by the handshake that its client had.
  function adopt(handle, { handshake, data }, again = 0) {
    const server = wss._server ?? undefined;
    handle.reading = false;
    const socket = new net.Socket({ handle, readable: true, writable: true, manualStart: true });
    if (server) {
      server._connections++;
      socket.server = server;
      socket._server = server;
    }
    const request = new http.IncomingMessage(socket);
    const { deflate } = handshake;
    Object.assign(request, { method: handshake.method, url: handshake.url, httpVersion: handshake.httpVersion });
    request.headers = handshake.headers;
    request.complete = true;
    const asked = { ...handshake.headers, 'sec-websocket-extensions': deflate && offer(deflate) };
    // What was agreed upon then holds, whatever is configured now. Nobody waits for the answer to a handshake.
    const options = {
      ...wss.options,
      verifyClient: null,
      handleProtocols: () => handshake.protocol || false,
      perMessageDeflate: deflate ? { ...wss.options.perMessageDeflate, ...AS_OFFERED } : false,
    };
    const replay = Object.create(wss, {
      options: { value: options },
      _state: { value: 0 },
      shouldHandle: { value: () => true },
      emit: { value: () => false },
    });
    socket.write = () => {
      delete socket.write;
      return true;
    };
    const replayed = Object.create(request, { headers: { value: asked } });
    handleUpgrade.call(replay, replayed, socket, Buffer.alloc(0), (ws) => {
      remember(ws, request, handshake);
      const entry = known.get(ws);
      if (entry) entry.again = again;
      onTakeover(ws, data, request);
    });
  }

  servers.set(name, adopt);
  listen();
  moves.register({ look, holds });
  return true;
}

/// Node takes what comes over the channel for a new connection. One that brings a state is ours.
function listen() {
  if (listens) return;
  listens = true;
  process.prependListener('internalMessage', (message, handle) => {
    if (message.cmd !== 'NODE_CLUSTER' || message.act !== 'newconn' || !message.clusterd || !handle) return;
    const { seq, clusterd: state } = message;
    message.cmd = 'NODE_CLUSTERD'; // Node's own listener comes after this one
    message.act = 'taken';
    send({ cmd: 'NODE_CLUSTER', ack: seq, accepted: true, seq: 0 }, () => {});
    const adopt = servers.get(state.name);
    if (adopt) return adopt(handle, state);
    sayOnce(`a WebSocket of the server "${state.name}" came here, where it is not known; it is closed`);
    return new net.Socket({ handle, readable: true, writable: true }).on('error', () => {}).end(SERVICE_RESTART);
  });
}

const AS_OFFERED = {
  serverNoContextTakeover: true,
  clientNoContextTakeover: true,
  serverMaxWindowBits: undefined,
  clientMaxWindowBits: undefined,
};

const offer = (params) =>
  [DEFLATE, ...Object.entries(params).map(([key, value]) => (value === true ? key : `${key}=${value}`))].join('; ');

const deflateOf = (ws) => ws._extensions?.[DEFLATE];

/// Not over TLS, and not where a compressor remembers earlier messages.
function canEverMove(ws) {
  const { _socket: socket, _receiver: receiver, _sender: sender } = ws;
  const params = deflateOf(ws)?.params;
  if (params && !(params.server_no_context_takeover && params.client_no_context_takeover)) {
    sayOnce('WebSockets with permessage-deflate stay when a worker leaves, because their compressor remembers earlier ' +
      'messages; set serverNoContextTakeover and clientNoContextTakeover, or perMessageDeflate: false');
    return false;
  }
  const isKnown = typeof receiver?._state === 'number' && typeof receiver._bufferedBytes === 'number' &&
    typeof receiver._fragmented === 'number' && typeof sender?._firstFragment === 'boolean' && Array.isArray(sender._queue);
  if (!isKnown) sayOnce('this version of ws is not known: its WebSockets stay when a worker leaves');
  return isKnown && ['TCP', 'Pipe'].includes(socket?._handle?.constructor.name);
}

function isAtRest(ws) {
  const { _socket: socket, _receiver: receiver, _sender: sender } = ws;
  return ws.readyState === 1 && !ws.isPaused && ws.bufferedAmount === 0 &&
    socket._handle?.fd >= 0 && !socket._handle.writeQueueSize && !socket.destroyed && socket.readable && socket.writable &&
    socket.readableLength === 0 && !socket.isPaused() &&
    receiver._state === 0 && receiver._bufferedBytes === 0 && receiver._fragmented === 0 && receiver.writableLength === 0 &&
    sender._firstFragment && sender._queue.length === 0 && !sender._state && !sender._deflating;
}

module.exports = { moveWebSockets };
