//! Sticky balancing: from a client's address to a slot. Rendezvous hashing (Thaler and Ravishankar, 1998): every slot has
//! a weight for every client and the heaviest wins, so that adding or removing one slot moves only that slot's share.
//!
//! A new client, or one whose worker cannot take the connection, costs a pass over all workers.
use super::{Candidates, Strategy};
use crate::balance::{GroupIx, MemberIx};
use std::net::IpAddr;

/// Clients whose worker is cached, for each app: 128 KiB.
const CLIENTS_KNOWN_MAX: usize = 4096;

/// The hash of a client. IPv4-mapped IPv6 addresses count as IPv4.
pub fn hash_ip(ip: IpAddr) -> u64 {
    match ip.to_canonical() {
        IpAddr::V4(v4) => mix(u64::from(u32::from(v4))),
        IpAddr::V6(v6) => {
            let bits = u128::from(v6);
            mix(mix((bits >> 64) as u64) ^ bits as u64)
        }
    }
}

pub fn weight(client: u64, slot: u32) -> u64 {
    mix(client ^ mix(u64::from(slot) + 1))
}

/// The strategy, with its cache.
#[derive(Clone, Debug, Default)]
pub(in crate::balance) struct Sticky {
    homes: Homes,
}

impl Strategy for Sticky {
    const WANTS_CLIENT: bool = true;

    /// The slot of the client among those that serve. A busy worker is waited for while its window allows more
    /// hand-offs; only a worker that cannot be given any is skipped.
    fn pick(&mut self, candidates: &mut Candidates<'_>, client: Option<u64>) -> Option<MemberIx> {
        let Some(client) = client else { return candidates.take_turn() };
        let group = candidates.group();
        let known = self.homes.of(group, client);
        if known.is_some_and(|home| candidates.can_take(home)) {
            return known;
        }
        let (mut home, mut pick) = (None, None);
        for candidate in candidates.eligible() {
            let heavier = Some((weight(client, candidate.slot()), candidate.member));
            home = home.max(heavier);
            if candidate.can_take() {
                pick = pick.max(heavier);
            }
        }
        if let Some((_, home)) = home {
            self.homes.remember(group, client, home);
        }
        pick.map(|(_, member)| member)
    }

    fn members_changed(&mut self) {
        self.homes.forget();
    }
}

/// A cache of the members that recent clients belong to.
#[derive(Clone, Debug, Default)]
struct Homes {
    /// Indexed by the low bits of the client's hash; empty until the first client.
    entries: Vec<Home>,
    /// Entries of an earlier epoch are invalid.
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
    #[inline]
    fn of(&self, group: GroupIx, client: u64) -> Option<MemberIx> {
        let home = self.entries.get(client as usize % CLIENTS_KNOWN_MAX)?;
        let valid = home.epoch == self.epoch && home.client == client && home.group == group;
        valid.then_some(home.member)
    }

    fn remember(&mut self, group: GroupIx, client: u64, member: MemberIx) {
        let home = Home { client, group, epoch: self.epoch, member };
        if self.entries.is_empty() {
            self.entries = vec![home; CLIENTS_KNOWN_MAX];
        }
        self.entries[client as usize % CLIENTS_KNOWN_MAX] = home;
    }

    fn forget(&mut self) {
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
