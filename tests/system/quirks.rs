//! What a simulated Node worker does wrong beside its work, and when. Which of it a worker does is in `manner`.
use crate::manner::{Quirk, Step};
use crate::node::Node;
use crate::world::State;
use serde_json::json;
use std::os::fd::OwnedFd;

/// Who has much to say writes pieces of at least this size.
const PIECE_BYTES_MIN: usize = 8 * 1024;
/// Lines that mean nothing to clusterd.
const BABBLE: [&str; 8] = [
    r#"{"cmd":"NODE_CLUSTER","act":"fantasy","seq":7}"#,
    r#"{"cmd":"NODE_SOMETHING","x":[1,2,3]}"#,
    r#"{"cmd":"NODE_CLUSTER","ack":999999999,"accepted":true}"#,
    r#"{"cmd":"NODE_CLUSTER","ack":0,"accepted":false}"#,
    r#"{"cmd":"NODE_CLUSTER","act":"close","key":"no such key","seq":3}"#,
    r#"{"type":"process:msg","data":{"a":"\u0000"}}"#,
    "[]",
    "\"ready?\"",
];

/// Lines that break the protocol.
const LIES: [&str; 6] = [
    "this is no JSON\n",
    "{\"cmd\":\"NODE_CLUSTER\",\"act\":\n",
    "\u{0}\u{0}\u{0}\u{0}\n",
    "{\"cmd\":\"NODE_CLUSTER\",\"act\":\"queryServer\",\"port\":\"x\",\"seq\":-1}\n",
    "}\n",
    "{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Native\",\"msg\":{\"cmd\":\"NODE_CLUSTERD\",\"act\":\"moved\"}}\n",
];

impl Node {
    /// The worker listens: when it does what its quirk says.
    pub(super) fn begin_quirk(&mut self, state: &State) {
        let now_us = state.now_us;
        self.quirk_us = match self.manner.quirk {
            Quirk::None
            | Quirk::Deaf { .. }
            | Quirk::Freezes { .. }
            | Quirk::Refuses(_)
            | Quirk::Mute(_)
            | Quirk::GivesEnded
            | Quirk::ListensElsewhere
            | Quirk::Slow
            | Quirk::Dies(Step::Start | Step::Online | Step::Asked | Step::Handed(_) | Step::Taken(_)) => None,
            Quirk::Dies(Step::Listening) => Some(now_us),
            _ => Some(now_us + self.manner.quirk_after_us),
        };
    }

    /// Does it, once. `false`: the channel is broken.
    pub(super) fn act_by_quirk(&mut self, state: &mut State, pid: i32) -> bool {
        if self.quirk_us.is_none_or(|at_us| at_us > state.now_us) {
            return true;
        }
        self.quirk_us = None;
        if !self.is_listening() {
            return true;
        }
        let quirk = std::mem::replace(&mut self.manner.quirk, Quirk::None);
        state.tell(&format!("worker {pid}"), &format!("{quirk:?}"));
        match quirk {
            Quirk::Floods { lines, bytes } => {
                self.manner.piece_bytes = self.manner.piece_bytes.max(PIECE_BYTES_MIN);
                let line = json!({ "filler": "x".repeat(bytes as usize) }).to_string();
                (0..lines).all(|_| self.send_line(line.clone(), None))
            }
            Quirk::Babbles => BABBLE.iter().all(|line| self.send_line((*line).to_owned(), None)),
            Quirk::Lies(nth) => self.send_raw(LIES[nth as usize % LIES.len()].as_bytes().to_vec(), None),
            Quirk::DiesWithinLine => {
                self.manner.piece_bytes = usize::MAX;
                let sent = self.send_raw(br#"{"cmd":"NODE_CLUSTER","act":"clo"#.to_vec(), None);
                self.die(10);
                sent
            }
            Quirk::ListensTwice => self.query(0, 1),
            Quirk::ListensAgain => self.query(self.port, 1),
            Quirk::ListensUdp => self.query_udp(),
            Quirk::ClosesServer => self.close_server(state.now_us),
            Quirk::Leaves => self.leave_by_itself(state, pid),
            Quirk::Dies(_) | Quirk::DiesAfter(_) => {
                self.die(11);
                true
            }
            Quirk::GivesOthers if self.has_preload() => {
                let null = std::fs::File::open("/dev/null").map(OwnedFd::from);
                let unconnected = std::net::UdpSocket::bind("127.0.0.1:0").map(OwnedFd::from);
                let listening = std::net::TcpListener::bind("127.0.0.1:0").map(OwnedFd::from);
                [null, unconnected, listening].into_iter().flatten().all(|handle| self.give_other(handle))
            }
            _ => true,
        }
    }
}
