//! Sticky balancing: from a client's address to a slot. Rendezvous hashing (Thaler and Ravishankar, 1998): every slot has
//! a weight for every client and the heaviest wins, so that adding or removing one slot moves only that slot's share.
use super::{GroupIx, MemberIx};
use crate::limits;
use std::net::IpAddr;

/// A number for a client. IPv4 addresses inside IPv6 count as IPv4.
pub fn hash_ip(ip: IpAddr) -> u64 {
    match ip.to_canonical() {
        IpAddr::V4(v4) => mix(u64::from(u32::from(v4))),
        IpAddr::V6(v6) => {
            let bits = u128::from(v6);
            mix(mix((bits >> 64) as u64) ^ bits as u64)
        }
    }
}

/// The weight of a slot for a client.
pub fn weight(client: u64, slot: u32) -> u64 {
    mix(client ^ mix(u64::from(slot) + 1))
}

/// Where clients that came lately belong, so that not every connection of theirs has to look at every worker.
#[derive(Clone, Debug, Default)]
pub(super) struct Homes {
    /// By the low bits of the client's number; empty as long as nobody came.
    entries: Vec<Home>,
    /// Entries of an earlier epoch are void.
    epoch: u64,
}

#[derive(Clone, Copy, Debug)]
struct Home {
    client: u64,
    group: GroupIx,
    epoch: u64,
    member: MemberIx,
}

impl Homes {
    pub(super) fn of(&self, group: GroupIx, client: u64) -> Option<MemberIx> {
        let home = self.entries.get(client as usize % limits::STICKY_CLIENTS_KNOWN_MAX)?;
        let valid = home.epoch == self.epoch && home.client == client && home.group == group;
        valid.then_some(home.member)
    }

    pub(super) fn remember(&mut self, group: GroupIx, client: u64, member: MemberIx) {
        let home = Home { client, group, epoch: self.epoch, member };
        if self.entries.is_empty() {
            self.entries = vec![home; limits::STICKY_CLIENTS_KNOWN_MAX];
        }
        self.entries[client as usize % limits::STICKY_CLIENTS_KNOWN_MAX] = home;
    }

    /// Workers came or went: clients may belong elsewhere.
    pub(super) fn forget(&mut self) {
        self.epoch += 1;
    }
}

/// Spreads 64 bits over 64 bits (the finalizer of splitmix64, Steele and others, 2014).
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
