// Loaded by clusterd into a Node worker before the app. `preload = false` leaves it out. It does five things:
//
// - It gives back connections between two requests, once the worker is told to leave or closes a server, so that another
//   worker gets them instead of their clients a closed connection (docs/moves.md).
// - It lets a program end that has come to its end. As in a child process of Node, and unlike under Node's cluster, the
//   channel alone keeps nobody alive: only listeners of its messages, servers, and answers that are awaited do.
// - It calls the app's listeners of `stop_signal`, where that is set, before a worker that was told to leave ends.
// - It tells clusterd of which servers the clients speak first, and which refuse connections.
// - It takes profiles of the process, where `clusterd profile` asks for one.
//
// Whatever fails here, the app runs as without it.
'use strict';
const cmd = 'NODE_CLUSTERD';
const HANDLE_ACK = 'NODE_HANDLE_ACK';
const LOOK_MS = 25; // between two looks at connections of which no event tells
const PAUSE_MS = 5; // before the next look at many connections
const MANY = 256;
const GIVE_MS = 1000; // until what could not be given for balance stays
const FRESH_MS = 500; // for the first byte of a fresh connection when nobody is left to move to; it may be twice as long

const quietly = (f) => function (...args) {
  try {
    return f.apply(this, args);
  } catch {
    return undefined;
  }
};

// Of a channel that is closed meanwhile: without a callback, Node has the process fail.
const ignore = () => {};

quietly(restoreOptions)();
quietly(setUp)();
quietly(callStopListeners)();

/// A worker that ends by itself once it was told to leave calls the app's listeners of `stop_signal` first, as the signal would.
function callStopListeners() {
  const signal = process.env.CLUSTERD_STOP_SIGNAL;
  if (!signal) return;
  delete process.env.CLUSTERD_STOP_SIGNAL;
  const told = (message) => {
    if (message.cmd !== 'NODE_CLUSTER' || message.act !== 'disconnect') return;
    process.off('internalMessage', told);
    process.once('beforeExit', () => process.listenerCount(signal) > 0 && process.emit(signal, signal));
  };
  process.on('internalMessage', told);
}

/// Children, threads and the app see NODE_OPTIONS as configured.
function restoreOptions() {
  const file = JSON.stringify(__filename);
  const options = process.env.NODE_OPTIONS ?? '';
  const rest = options.replace(`--require=${file}`, '').replace(`--allow-fs-read=${file}`, '').trimStart();
  if (rest === options) return;
  if (rest) process.env.NODE_OPTIONS = rest;
  else delete process.env.NODE_OPTIONS;
}

function setUp() {
  delete require.cache[__filename];
  if (!require('worker_threads').isMainThread || !process.connected || !require('cluster').isWorker) return;
  const http = require('http');
  const send = process.send.bind(process);
  const { hold, release } = quietly(freeChannel)() ?? { hold() {}, release() {} };
  const closing = new Set(); // servers that the app closed
  const perhaps = new Set(); // servers that are just being closed, perhaps
  const sessions = new Set(); // of HTTP/2
  const given = []; // handles that wait to be sent, each with its socket
  const begun = Symbol('a request has begun');
  let moving = false; // told to leave: whatever can move does
  let quota = 0; // connections to give to workers that keep fewer
  let eldest; // of these
  let ending = false; // nobody is left to move to
  let sending = false;
  let ends; // called when clusterd has said who has the connection that was just sent
  let syncs = 0; // questions whether a new master has read what was sent
  let asked; // the last of them, and what it is about
  const movers = []; // who moves connections that are upgraded: { look, holds }
  const answers = require('diagnostics_channel').channel('http.server.response.finish');
  let looks = false; // a look is due
  let looked = 0; // connections seen by the last one
  let timer;
  let enough;
  if (!http.Server.prototype.closeIdleConnections) trackRequests();

  /// Takes the process off its channel. Node counts who needs the channel: here are those of whom it does not know.
  function freeChannel() {
    const cluster = require('cluster');
    const { channel } = process;
    const { worker } = cluster;
    const hold = () => channel.refCounted();
    const release = () => channel.unrefCounted();

    // A server holds the process from the request for its socket until it is closed.
    const getServer = cluster._getServer;
    cluster._getServer = function _getServer(server, options, done) {
      hold();
      return getServer.call(this, server, described(server, options), function (error, handle, ...rest) {
        if (handle && !isKernels(handle)) holdWith(handle);
        try {
          return done.call(this, error, handle, ...rest);
        } finally {
          release();
        }
      });
    };

    /// Clients of HTTP and of TLS speak first: a connection may wait for that before the worker accepts it. A server that
    /// refuses connections can have them handed to it only, so that they go to another worker.
    function described(server, options) {
      const clientFirst = server instanceof http.Server || isTls(server) || typeof server?.updateSettings === 'function';
      const refuses = typeof server?.maxConnections === 'number';
      return clientFirst || refuses ? { ...options, clientFirst, refuses } : options;
    }

    /// A handle without a socket, of a server whose connections come over the channel.
    function holdWith(handle) {
      let holds = false;
      const set = (value) => {
        if (value !== holds) (value ? hold : release)();
        holds = value;
      };
      for (const [name, value] of [['ref', true], ['unref', false], ['close', false]]) {
        const own = handle[name];
        handle[name] = function (...args) {
          const result = own.apply(this, args);
          set(value);
          return result;
        };
      }
      set(true);
    }

    // Who leaves waits for the primary, then closes the channel.
    const prototype = Object.getPrototypeOf(worker);
    for (const name of ['disconnect', 'destroy']) {
      const leave = prototype[name];
      prototype[name] = function (...args) {
        hold();
        return leave.apply(this, args);
      };
    }
    process.on('internalMessage', (message) => {
      if (message.cmd === 'NODE_CLUSTER' && message.act === 'disconnect') hold();
    });

    // Messages behind a handle wait for its acknowledgement.
    process.on('beforeExit', () => {
      if (process.connected && process._handleQueue) setTimeout(() => {}, LOOK_MS);
    });

    worker.on('newListener', (name) => name === 'message' && hold());
    worker.on('removeListener', (name) => name === 'message' && release());
    // Those of Node's cluster itself.
    for (const name of ['message', 'disconnect']) process.listeners(name).forEach(release);
    return { hold, release };
  }

  const listOf = (server) => server[Object.getOwnPropertySymbols(server).find((s) => s.description === 'http.server.connections')];
  const isTls = (server) => typeof server.setSecureContext === 'function';

  const kept = () => process._getActiveHandles().filter(({ parser, server }) => parser && server instanceof http.Server);
  const leaves = (server) => moving || closing.has(server);

  /// The sockets of plain HTTP/1 whose parsers have begun no request.
  function* resting() {
    const lists = new Map();
    const isIdle = (server, socket) => {
      if (!lists.has(server)) lists.set(server, new Set(listOf(server)?.idle?.().map((parser) => parser.socket)));
      return lists.get(server).has(socket);
    };
    const handles = process._getActiveHandles();
    looked = handles.length;
    for (const socket of handles) {
      const { parser, server } = socket;
      if (!parser || !(server instanceof http.Server) || isTls(server) || !(leaves(server) || quota > 0)) continue;
      // Node counts a fresh connection as active.
      if (socket.bytesRead === 0 || parser[begun] === false || isIdle(server, socket)) yield socket;
    }
  }

  /// Whether everything asked on it is answered and written, and the kernel can send it.
  function canMove(socket) {
    const { _handle: handle, _httpMessage: answer, parser } = socket;
    return handle && isKernels(handle) && !(answer && !answer.finished) && (!parser.incoming || parser.incoming.complete) &&
      socket.writableLength === 0 && !handle.writeQueueSize && socket.readableLength === 0 &&
      socket.readable && socket.writable && !socket.destroyed && !socket._paused;
  }

  function isKernels(handle) {
    return ['TCP', 'Pipe', 'UDP'].includes(handle.constructor.name) && handle.fd >= 0;
  }

  /// Takes a connection out of the worker. What its client sends from now on waits in the kernel.
  function take(socket, state, back) {
    const { _handle: handle, parser } = socket;
    handle.readStop();
    handle.onread = () => {};
    if (parser?._consumed) {
      parser.unconsume();
      parser._consumed = false;
    }
    socket._handle = null;
    socket.setTimeout(0);
    hold(); // what is not read keeps nobody alive
    given.push({ handle, socket, state, back });
  }

  /// Sends clusterd one connection after the other. The server ends when its last socket does, and the channel with it.
  const sendNext = quietly(() => {
    if (sending || given.length === 0) return;
    const { handle, socket, state, back } = given.shift();
    sending = true;
    const end = quietly((stays) => {
      sending = false;
      ends = undefined;
      release();
      if (stays && back) back(handle);
      else handle.close();
      socket.destroy();
      sendNext();
    });
    // One with a state may come back.
    const sent = (error) => (back && !error ? (ends = end) : end(Boolean(error)));
    send({ cmd, act: 'moved', state }, handle, { keepOpen: true }, sent);
  });

  const lookNow = quietly(() => {
    looks = false;
    if (ending || !process.connected) return;
    for (const socket of resting()) {
      if (!canMove(socket)) continue;
      if (!leaves(socket.server)) {
        if (quota === 0 || !eldest.has(socket)) continue;
        quota--;
      }
      take(socket);
    }
    for (const mover of movers) mover.look();
    sendNext();
  });

  function look() {
    if (looks) return;
    looks = true;
    // At once: the client's next request may come in the same turn.
    if (looked > MANY) setTimeout(lookNow, PAUSE_MS);
    else process.nextTick(lookNow);
  }

  function watch() {
    look();
    if (timer) return;
    timer = setInterval(() => {
      if (moving || closing.size > 0 || quota > 0) return look();
      clearInterval(timer);
      timer = undefined;
      answers.unsubscribe(look);
    }, LOOK_MS);
    timer.unref();
    answers.subscribe(look);
  }

  /// Clients whose connections cannot move learn it with the next answer.
  function tellOthers() {
    const say = quietly(({ response, socket }) => {
      if (!response.headersSent && !isKernels(socket._handle)) response.shouldKeepAlive = false;
    });
    require('diagnostics_channel').channel('http.server.request.start').subscribe(say);
    for (const { server } of process._getActiveHandles()) {
      const parsers = server instanceof Object ? listOf(server)?.all?.() ?? [] : [];
      for (const { socket } of parsers) if (socket?._httpMessage) say({ response: socket._httpMessage, socket });
    }
    for (const session of sessions) session.close(); // sends GOAWAY
  }

  /// Node closes what rests after a request, and waits for connections without one, and so for those that have moved here.
  function endFresh() {
    const seen = new WeakSet();
    const lookAtFresh = quietly(() => {
      for (const socket of kept()) {
        if (socket.bytesRead > 0) continue;
        if (seen.has(socket)) socket.destroy();
        else seen.add(socket);
      }
    });
    lookAtFresh();
    setInterval(lookAtFresh, FRESH_MS).unref();
  }

  /// Versions before 18.2 have no list of idle connections.
  function trackRequests() {
    const { HTTPParser } = require('_http_common');
    const { kOnMessageBegin, kOnMessageComplete } = HTTPParser;
    const { initialize } = HTTPParser.prototype;
    const note = (parser, event, value) => {
      let listener = parser[event];
      const noted = function (...args) {
        parser[begun] = value;
        return typeof listener === 'function' ? listener.apply(this, args) : undefined;
      };
      Object.defineProperty(parser, event, { get: () => noted, set: (f) => { listener = f; } });
    };
    HTTPParser.prototype.initialize = function (...args) {
      if (this[begun] === undefined) {
        note(this, kOnMessageBegin, true);
        note(this, kOnMessageComplete, false);
      }
      this[begun] = false;
      return initialize.apply(this, args);
    };
  }

  let profiling = false;

  /// Takes a profile within this process, without a port, and writes it with this process's rights.
  function profile({ nth, kind, ms, file, name, most }) {
    const answer = (result) => send({ cmd, act: 'profiled', nth, ...result }, ignore);
    if (profiling) return answer({ error: 'another profile is being taken' });
    const fs = require('fs');
    const ending = kind === 'heap' ? 'heapsnapshot' : 'cpuprofile';
    const path = file ?? require('path').join(require('os').tmpdir(), `${name}-${process.pid}-${Date.now()}.${ending}`);
    let fd;
    let session;
    let written = 0;
    let over = false;
    const end = (error) => {
      if (over) return;
      over = true;
      profiling = false;
      quietly(() => session.disconnect())();
      if (fd !== undefined) quietly(fs.closeSync)(fd);
      if (fd !== undefined && error) quietly(fs.unlinkSync)(path);
      answer(error ? { error: String(error.message) } : { file: path });
    };
    const write = (text) => {
      const bytes = Buffer.from(text);
      written += bytes.length;
      if (written > most) throw new Error(`the profile has more than ${most} bytes`);
      for (let at = 0; at < bytes.length;) at += fs.writeSync(fd, bytes, at);
    };
    try {
      profiling = true;
      const { Session } = require('inspector');
      fd = fs.openSync(path, 'wx', 0o600);
      session = new Session();
      session.connect();
      if (kind === 'heap') {
        let failed;
        session.on('HeapProfiler.addHeapSnapshotChunk', ({ params }) => {
          try {
            if (!failed) write(params.chunk);
          } catch (error) {
            failed = error;
          }
        });
        session.post('HeapProfiler.takeHeapSnapshot', {}, (error) => end(error ?? failed));
        return;
      }
      session.post('Profiler.enable');
      session.post('Profiler.start', (error) => error && end(error));
      setTimeout(() => over || session.post('Profiler.stop', (error, result) => {
        try {
          if (!error) write(JSON.stringify(result.profile));
          end(error);
        } catch (unwritten) {
          end(unwritten);
        }
      }), ms).unref();
    } catch (error) {
      end(error);
    }
  }

  const closeIdle = http.Server.prototype.closeIdleConnections;
  if (closeIdle) {
    http.Server.prototype.closeIdleConnections = function closeIdleConnections() {
      if (ending || !process.connected) return closeIdle.call(this);
      // Node calls it while it closes the server, before the server stops to listen.
      perhaps.add(this);
      process.nextTick(() => {
        perhaps.delete(this);
        if (moving || (!this.listening && !isTls(this))) {
          closing.add(this);
          this.once('close', () => closing.delete(this));
          watch();
        } else {
          closeIdle.call(this);
        }
      });
      return undefined;
    };
  }

  // A worker that leaves by itself closes its channel while it still has connections to give back.
  const { disconnect } = process;
  process.disconnect = function (...args) {
    const isBusy = ({ parser, server }) => parser && closing.has(server) && !isTls(server);
    const leave = () => {
      const waits = () => sending || given.length > 0 || movers.some((mover) => mover.holds()) || process._getActiveHandles().some(isBusy);
      if (ending || !process.connected || !waits()) {
        return disconnect.apply(this, args);
      }
      setTimeout(leave, LOOK_MS);
      return undefined;
    };
    if (perhaps.size === 0) return leave();
    process.nextTick(() => process.nextTick(leave));
    return undefined;
  };

  const { prototype } = require('net').Server;
  const { listen } = prototype;
  const ownPort = Number(process.env.PORT);
  prototype.listen = function (...args) {
    // The port of the configuration is clusterd's: a socket of its own there could not be had.
    const [options] = args;
    if (ownPort > 0 && Number(options?.port) === ownPort && (options.exclusive || options.reusePort)) {
      args[0] = { ...options, exclusive: false, reusePort: false };
    }
    if (typeof this.updateSettings === 'function') this.on('session', (session) => {
      sessions.add(session);
      session.once('close', () => sessions.delete(session));
    });
    return listen.apply(this, args);
  };

  // For the helper of WebSockets (workers/node/clusterd-ws.js): its connections move with a state. One that nobody takes comes
  // back, with its handle.
  Object.defineProperty(process, Symbol.for('clusterd.moves'), {
    value: {
      version: 1,
      register(mover) {
        movers.push(mover);
        send({ cmd, act: 'takes' }, ignore);
      },
      leaves: (server) => !ending && process.connected && leaves(server),
      give: take,
    },
  });

  // Node sends nothing until a handle is acknowledged, which a master that dies may leave undone. Its successor says that it
  // has read the channel. If the handle was sent after that, its acknowledgement comes as well, and Node expects none.
  process.prependListener('internalMessage', (message) => {
    if (message.cmd === HANDLE_ACK && !process._handleQueue) process._handleQueue = [];
  });

  process.on('internalMessage', quietly((message) => {
    if (message.cmd !== cmd) return;
    if (message.act === 'move' && !moving) {
      moving = true;
      watch();
      quietly(tellOthers)();
    }
    if (message.act === 'count') send({ cmd, act: 'kept', count: kept().length }, ignore);
    if (message.act === 'give') {
      quota = message.count;
      eldest = new WeakSet(kept().slice(0, message.of)); // Node lists the oldest first
      watch();
      clearTimeout(enough);
      enough = setTimeout(() => { quota = 0; }, GIVE_MS);
      enough.unref();
    }
    if (message.act === 'profile') profile(message);
    if (message.act === 'end' && !ending) {
      ending = true;
      endFresh();
    }
    if (message.act === 'synced' && message.nth === asked?.nth && ends === asked.ends) ends?.(false);
    if (message.act === 'stays') ends?.(true);
    if (message.act === 'taken') ends?.(false);
    if (message.act === 'resumed') {
      // The previous master has read what was just sent, or this one will. It says so in the order of what it reads.
      if (ends) {
        asked = { nth: ++syncs, ends };
        send({ cmd, act: 'sync', nth: syncs }, ignore);
      }
      if (movers.length > 0) send({ cmd, act: 'takes' }, ignore);
    }
    if (message.act === 'resumed' && process._handleQueue) process.emit('internalMessage', { cmd: HANDLE_ACK });
  }));
  send({ cmd, act: 'hello' }, ignore);
}
