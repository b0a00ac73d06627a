//! The preload alone: a Node worker under a primary that is played by a small Python program, which can do what a real one does
//! only in the instant of its death.
use super::cluster::Folder;
use std::process::{Command, Stdio};

/// Starts the worker and waits until it listens.
const PRIMARY: &str = r#"
import atexit, json, os, socket, subprocess, sys
ours, theirs = socket.socketpair()
ours.settimeout(20)
env = dict(os.environ, NODE_CHANNEL_FD=str(theirs.fileno()), NODE_CHANNEL_SERIALIZATION_MODE='json', NODE_UNIQUE_ID='1')
worker = subprocess.Popen(['node', '--require', sys.argv[1], sys.argv[2]], env=env, pass_fds=[theirs.fileno()],
                          stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
atexit.register(worker.kill)
theirs.close()
lines, pending, handles = [], b'', []

def send(message, fds=()):
    socket.send_fds(ours, [(json.dumps(message) + '\n').encode()], list(fds))

def hear(wanted):
    """The next message for which `wanted` holds; others are dropped."""
    global pending
    while True:
        while lines:
            message = lines.pop(0)
            if wanted(message):
                return message
        data, fds, _, _ = socket.recv_fds(ours, 65536, 8)
        assert data, 'the channel closed'
        handles.extend(fds)
        *whole, pending = (pending + data).split(b'\n')
        lines.extend(json.loads(line) for line in whole)

listener = socket.create_server(('127.0.0.1', 0))
is_moved = lambda m: m.get('msg', {}).get('act') == 'moved'

def hand_over(seq):
    """The client of a connection that the worker has been handed."""
    client = socket.create_connection(listener.getsockname())
    client.settimeout(20)
    accepted, _ = listener.accept()
    send({'cmd': 'NODE_HANDLE', 'type': 'net.Native', 'msg': {'cmd': 'NODE_CLUSTER', 'act': 'newconn', 'key': 'k', 'seq': seq}}, [accepted.fileno()])
    accepted.close()
    return client

asked = hear(lambda m: m.get('act') == 'queryServer')
send({'cmd': 'NODE_CLUSTER', 'ack': asked['seq'], 'key': 'k', 'errno': 0, 'data': None})
hear(lambda m: m.get('act') == 'listening')
"#;

/// Takes two connections back from a worker that is told to leave, and acknowledges the first of them only as a new master does.
const MOVES: &str = r#"
clients = []
for seq in (1, 2):
    client = hand_over(seq)
    client.sendall(b'GET / HTTP/1.1\r\nhost: a\r\n\r\n')
    assert client.recv(4096).startswith(b'HTTP/1.1 200')
    clients.append(client)

send({'cmd': 'NODE_CLUSTERD', 'act': 'move'})
hear(is_moved)
assert len(handles) == 1, 'Node sends one handle at a time'
# The master dies here. Its successor has read the channel.
send({'cmd': 'NODE_CLUSTERD', 'act': 'resumed'})
hear(is_moved)
assert len(handles) == 2
# One for each that was read, and so one more than Node waits for.
send({'cmd': 'NODE_HANDLE_ACK'})
send({'cmd': 'NODE_HANDLE_ACK'})
send({'cmd': 'NODE_CLUSTERD', 'act': 'resumed'})
send({'cmd': 'NODE_CLUSTER', 'act': 'disconnect', 'seq': 3})
assert worker.wait(20) == 0, worker.returncode
for handle in handles:
    os.close(handle)
for client in clients:
    assert client.recv(1) == b'', 'nobody has it any more'
print('both moved')
"#;

/// The app moves its connections with a state, as the helper for WebSockets does, and answers on those that come back.
const MOVER: &str = "const held = new Set();
require('net').createServer((socket) => held.add(socket)).listen(8080);
const moves = process[Symbol.for('clusterd.moves')];
const back = (handle) => {
  const socket = new (require('net').Socket)({ handle, readable: true, writable: true });
  socket.write('back');
};
moves.register({
  holds: () => held.size > 0,
  look() {
    for (const socket of held) if (moves.leaves(undefined)) {
      held.delete(socket);
      moves.give(socket, { n: 1 }, back);
    }
  },
});";

/// Takes two connections with their states: the first is read by a master that dies, the second by its successor, which has said
/// before that it is there.
const MOVES_WITH_STATE: &str = r#"
clients = []
for seq in (1, 2):
    client = hand_over(seq)
    hear(lambda m: m.get('ack') == seq and m.get('accepted'))
    clients.append(client)

is_sync = lambda m: m.get('act') == 'sync'
send({'cmd': 'NODE_CLUSTERD', 'act': 'move'})
hear(is_moved)
# The master died. Its successor has nothing of this worker to read before it gets the question.
send({'cmd': 'NODE_CLUSTERD', 'act': 'resumed'})
asked = hear(is_sync)
send({'cmd': 'NODE_CLUSTERD', 'act': 'synced', 'nth': asked['nth']})
hear(is_moved)
# It dies as well, before it has read this; the next one reads it after it has said that it is there.
send({'cmd': 'NODE_CLUSTERD', 'act': 'resumed'})
send({'cmd': 'NODE_CLUSTERD', 'act': 'synced', 'nth': asked['nth']})
send({'cmd': 'NODE_CLUSTERD', 'act': 'stays'})
send({'cmd': 'NODE_HANDLE_ACK'})
for handle in handles:
    os.close(handle)
ends = sorted(client.recv(16) for client in clients)
assert ends == [b'', b'back'], ends
print('one stays')
"#;

/// Asks, and is gone before it is answered.
const ASKS_AND_DIES: &str = r#"
send({'cmd': 'NODE_CLUSTERD', 'act': 'count'})
ours.close()
assert worker.wait(20) == 0, worker.returncode
print('ended well')
"#;

const APP: &str = "require('http').createServer((q, s) => s.end('x')).listen(8080);";

/// Whether the worker does what this primary expects.
fn play(app: &str, rest: &str, end: &str) {
    let folder = Folder::new();
    let primary = folder.write("primary.py", &[PRIMARY, rest].concat());
    let (app, preload) =
        (folder.write("app.js", app), folder.write("preload.cjs", clusterd::worker::node::preload::SCRIPT));
    let output = Command::new("python3").args([primary, preload, app]).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains(end), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_connection_that_a_dying_master_did_not_acknowledge_holds_up_no_other() {
    play(APP, MOVES, "both moved");
}

#[test]
fn a_connection_with_its_state_that_a_new_master_refuses_stays_though_it_came_late() {
    play(MOVER, MOVES_WITH_STATE, "one stays");
}

#[test]
fn an_answer_that_nobody_reads_any_more_fails_no_worker() {
    play(APP, ASKS_AND_DIES, "ended well");
}
