//! Programs with which the kernel chooses a socket of an SO_REUSEPORT group, as plain data. The selection is an
//! argument; `turns` and `group` load and attach them.
//!
//! - [`by_turns`]: eBPF, turns, counts what each socket got, and lets those wait where much waits. Needs CAP_BPF.
//! - [`by_chance`]: classic BPF, a random one of those that may be chosen. Needs no privilege.
//! - [`by_flow`]: classic BPF for datagrams, so that those of one client stay together.
//!
//! Classic BPF has no tables: the lookup is a tree of comparisons, with one leaf for each run of consecutive sockets.
use crate::balance::sticky;

/// Instructions of a classic program (the kernel's BPF_MAXINSNS).
#[cfg(test)]
const INSTRUCTIONS_MAX: usize = 4096;
/// Runs of consecutive sockets in one program; each takes up to four instructions.
const RUNS_MAX: usize = 960;
/// The same for a program that uses a hash; each takes up to three.
const FLOW_RUNS_MAX: usize = 1280;

/// How the kernel chooses among the sockets of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Steering {
    /// In turns, among the selected sockets.
    Turns,
    /// At random (datagrams: by a hash), among the selected sockets.
    Random,
    /// By the kernel's own hash, among all sockets.
    Hash,
}

/// One instruction of classic BPF (`struct sock_filter`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classic {
    /// The operation.
    pub code: u16,
    /// Instructions to skip when a comparison holds.
    pub jump_true: u8,
    /// Instructions to skip when it does not.
    pub jump_false: u8,
    /// The constant.
    pub k: u32,
}

impl Classic {
    /// As `struct sock_filter` has it.
    pub fn to_bytes(&self) -> [u8; 8] {
        let mut bytes = [0; 8];
        bytes[..2].copy_from_slice(&self.code.to_ne_bytes());
        (bytes[2], bytes[3]) = (self.jump_true, self.jump_false);
        bytes[4..].copy_from_slice(&self.k.to_ne_bytes());
        bytes
    }
}

/// One instruction of eBPF (`struct bpf_insn`). A constant of 64 bits takes two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extended {
    /// The operation.
    pub code: u8,
    /// Destination register.
    pub dst: u8,
    /// Source register.
    pub src: u8,
    /// Jump distance, or memory offset.
    pub offset: i16,
    pub constant: i32,
}

impl Extended {
    /// As `struct bpf_insn` has it. The two registers share a byte, as bit fields in the order of the machine.
    pub fn to_bytes(&self) -> [u8; 8] {
        let registers =
            if cfg!(target_endian = "little") { self.src << 4 | self.dst } else { self.dst << 4 | self.src };
        let mut bytes = [0; 8];
        (bytes[0], bytes[1]) = (self.code, registers);
        bytes[2..4].copy_from_slice(&self.offset.to_ne_bytes());
        bytes[4..].copy_from_slice(&self.constant.to_ne_bytes());
        bytes
    }
}

// linux/bpf_common.h and linux/filter.h.
const LD_W_ABS: u16 = 0x20;
const LD_H_ABS: u16 = 0x28;
const LD_B_ABS: u16 = 0x30;
const LD_H_IND: u16 = 0x48;
const LDX_B_MSH: u16 = 0xb1;
const LDX_MEM: u16 = 0x61;
const ST: u16 = 0x02;
const ADD_K: u16 = 0x04;
const MUL_K: u16 = 0x24;
const RSH_K: u16 = 0x74;
const MOD_K: u16 = 0x94;
const XOR_X: u16 = 0xac;
const JUMP: u16 = 0x05;
const JUMP_EQ: u16 = 0x15;
const JUMP_GE: u16 = 0x35;
const RET_K: u16 = 0x06;
const RET_A: u16 = 0x16;
const TAX: u16 = 0x07;
/// SKF_AD_OFF + SKF_AD_RANDOM.
const RANDOM: u32 = (-0x1000_i32 + 56) as u32;
/// SKF_NET_OFF: offsets from here count from the IP header.
const NET: u32 = -0x10_0000_i32 as u32;

/// A run of consecutive numbers: the values that lead to it in the tree, and its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    /// The first number of the run.
    from: u32,
    leaf: Leaf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaf {
    /// The number plus this (wrapping).
    Plus(u32),
    Just(u32),
}

/// A program that returns a random one of `selected` (ascending). `None` if `selected` is empty.
///
/// If there are more runs than fit into a program, the shortest are left out.
pub fn by_chance(selected: &[u32]) -> Option<Vec<Classic>> {
    let mut groups: Vec<(u32, u32)> = Vec::new();
    for &index in selected {
        match groups.last_mut() {
            Some((first, count)) if *first + *count == index => *count += 1,
            _ => groups.push((index, 1)),
        }
    }
    if groups.len() > RUNS_MAX {
        groups.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        groups.truncate(RUNS_MAX);
        groups.sort_unstable();
    }
    let mut total = 0;
    let mut runs = Vec::with_capacity(groups.len());
    for (first, count) in groups {
        runs.push(Run { from: total, leaf: Leaf::Plus(first.wrapping_sub(total)) });
        total += count;
    }
    if runs.is_empty() {
        return None;
    }
    let mut program = vec![stmt(LD_W_ABS, RANDOM), stmt(MOD_K, total)];
    program.extend(tree(&runs));
    Some(program)
}

/// A program that returns one of `selected` (ascending) by a hash of the datagram's addresses and its source port, so
/// that a client's datagrams go to one socket as long as that is selected. Clients of an unselected one of the `slots`
/// sockets are spread over the others, and return with it; all other clients stay.
pub fn by_flow(slots: u32, selected: &[u32]) -> Option<Vec<Classic>> {
    let slots = slots.max(1);
    if selected.is_empty() {
        return None;
    }
    let mut runs: Vec<Run> = Vec::new();
    for home in 0..slots {
        // More runs than fit: one socket for all the rest.
        let last = runs.len() + 1 == FLOW_RUNS_MAX;
        let leaf = match selected.binary_search(&home) {
            Ok(_) if !last => Leaf::Plus(0),
            Ok(_) | Err(_) => Leaf::Just(stand_in(home, selected)),
        };
        if runs.last().is_none_or(|run| run.leaf != leaf) {
            runs.push(Run { from: home, leaf });
        }
        if last {
            break;
        }
    }
    let mut program = flow_hash();
    program.push(stmt(MOD_K, slots));
    program.extend(tree(&runs));
    Some(program)
}

/// The socket for the clients of an unselected one (rendezvous hashing).
fn stand_in(home: u32, selected: &[u32]) -> u32 {
    let best = selected.iter().max_by_key(|&&index| sticky::weight(u64::from(home), index));
    best.copied().unwrap_or(home)
}

/// Leaves a hash of source address, destination address and source port in the accumulator. Memory cell 0 holds the
/// intermediate result.
fn flow_hash() -> Vec<Classic> {
    // IPv4 has the addresses at 12 and 16, and the port behind a header of variable length. IPv6 has them at 8 to 36,
    // and the port at 40 (with extension headers another field that does not change).
    let v6: Vec<u32> = (0..8).map(|word| 8 + 4 * word).collect();
    let mut six = mix_words(&v6);
    six.push(stmt(LD_H_ABS, NET.wrapping_add(40)));
    let mut four = mix_words(&[12, 16]);
    four.push(stmt(LDX_B_MSH, NET));
    four.push(stmt(LD_H_IND, NET));
    four.push(stmt(JUMP, six.len() as u32));
    let mut program = vec![stmt(LD_B_ABS, NET), stmt(RSH_K, 4)];
    program.push(Classic { code: JUMP_EQ, jump_true: 0, jump_false: four.len() as u8, k: 4 });
    program.extend(four);
    program.extend(six);
    // The port is in the accumulator.
    program.extend([stmt(LDX_MEM, 0), stmt(XOR_X, 0)]);
    program.extend(finish_hash());
    program
}

/// Folds words of the IP header into memory cell 0.
fn mix_words(offsets: &[u32]) -> Vec<Classic> {
    let mut program = Vec::new();
    for (n, &offset) in offsets.iter().enumerate() {
        program.push(stmt(LD_W_ABS, NET.wrapping_add(offset)));
        if n > 0 {
            program.extend([stmt(LDX_MEM, 0), stmt(XOR_X, 0)]);
        }
        program.extend([stmt(MUL_K, 0x9e37_79b1), stmt(TAX, 0), stmt(RSH_K, 15), stmt(XOR_X, 0), stmt(ST, 0)]);
    }
    program
}

/// Spreads the last word over all bits (the finalizer of MurmurHash3, Appleby, 2011).
fn finish_hash() -> Vec<Classic> {
    let mut program = Vec::new();
    for (shift, factor) in [(16, 0x85eb_ca6b), (13, 0xc2b2_ae35)] {
        program.extend([stmt(TAX, 0), stmt(RSH_K, shift), stmt(XOR_X, 0), stmt(MUL_K, factor)]);
    }
    program.extend([stmt(TAX, 0), stmt(RSH_K, 16), stmt(XOR_X, 0)]);
    program
}

/// A binary search for the run of the number in the accumulator.
fn tree(runs: &[Run]) -> Vec<Classic> {
    match runs {
        [] => Vec::new(),
        [Run { leaf: Leaf::Plus(0), .. }] => vec![stmt(RET_A, 0)],
        [Run { leaf: Leaf::Plus(plus), .. }] => vec![stmt(ADD_K, *plus), stmt(RET_A, 0)],
        [Run { leaf: Leaf::Just(index), .. }] => vec![stmt(RET_K, *index)],
        _ => {
            let (left, right) = runs.split_at(runs.len() / 2);
            let border = right[0].from;
            let (left, right) = (tree(left), tree(right));
            let mut program = match u8::try_from(left.len()) {
                Ok(skip) => vec![Classic { code: JUMP_GE, jump_true: skip, jump_false: 0, k: border }],
                Err(_) => vec![
                    Classic { code: JUMP_GE, jump_true: 0, jump_false: 1, k: border },
                    stmt(JUMP, left.len() as u32),
                ],
            };
            program.extend(left);
            program.extend(right);
            program
        }
    }
}

/// The program of [`by_chance`], but a connection from this port of this machine goes to `socket`, whether it is selected or
/// not. `None`: too many runs.
pub fn aimed(selected: &[u32], v6: bool, port: u16, socket: u32) -> Option<Vec<Classic>> {
    let (version, port_at) = if v6 { (6, 40) } else { (4, 20) };
    let rest = by_chance(selected)?;
    // Own connections have no options in the IP header. The port is read where it can be only: a load beyond the packet would
    // end the program.
    let mut program = vec![stmt(LD_B_ABS, NET), stmt(RSH_K, 4)];
    program.push(Classic { code: JUMP_EQ, jump_true: 0, jump_false: 3, k: version });
    program.push(stmt(LD_H_ABS, NET.wrapping_add(port_at)));
    program.push(Classic { code: JUMP_EQ, jump_true: 0, jump_false: 1, k: u32::from(port) });
    program.push(stmt(RET_K, socket));
    program.extend(rest);
    Some(program)
}

fn stmt(code: u16, k: u32) -> Classic {
    Classic { code, jump_true: 0, jump_false: 0, k }
}

/// A program that returns the sockets of `selected` in turn. `counters`, `table` and `skips` are the numbers of maps
/// with one element each: the first holds the turn and then the count of each of `sockets` sockets, as u64; the second
/// the `selected` numbers, as u32; the third how many turns each socket still leaves to the next one, as i64.
pub fn by_turns(counters: i32, table: i32, skips: i32, selected: u32, sockets: u32) -> Vec<Extended> {
    const R0: u8 = 0;
    const COUNTERS: u8 = 6;
    const TURN: u8 = 7;
    const INDEX: u8 = 8;
    let op = |code, dst, src, offset, constant| Extended { code, dst, src, offset, constant };
    let set = |dst, constant| op(0xb7, dst, 0, 0, constant);
    let copy = |dst, src| op(0xbf, dst, src, 0, 0);
    let add = |dst, src| op(0x0f, dst, src, 0, 0);
    let shift_left = |dst, bits| op(0x67, dst, 0, 0, bits);
    let atomic_add = |dst, src, offset, fetch: i32| op(0xdb, dst, src, offset, fetch);
    let exit = op(0x95, 0, 0, 0, 0);
    // Distance 0 means "give up": it is patched to the end below.
    let give_up_if_null = op(0x15, R0, 0, 0, 0);
    let give_up_above = |dst, most: u32| op(0x25, dst, 0, 0, most.saturating_sub(1) as i32);
    let look_up = |map: i32| {
        [copy(2, 10), op(0x07, 2, 0, 0, -4), op(0x18, 1, 1, 0, map), op(0, 0, 0, 0, 0), op(0x85, 0, 0, 0, 1)]
    };
    let mut next = vec![set(TURN, 1), atomic_add(COUNTERS, TURN, 0, 1)];
    next.push(op(0x97, TURN, 0, 0, selected.max(1) as i32));
    next.extend(look_up(table));
    next.extend([give_up_if_null, give_up_above(TURN, selected.max(1)), shift_left(TURN, 2), add(R0, TURN)]);
    next.extend([op(0x61, INDEX, R0, 0, 0), give_up_above(INDEX, sockets)]);

    let mut program = vec![op(0x62, 10, 0, -4, 0)];
    program.extend(look_up(counters));
    program.extend([give_up_if_null, copy(COUNTERS, R0)]);
    program.extend(&next);
    program.extend(look_up(skips));
    program.extend([give_up_if_null, copy(1, INDEX), shift_left(1, 3), add(R0, 1), op(0x79, 1, R0, 0, 0)]);
    // Nothing to leave: jump over the choice of the next one.
    program.push(op(0xd5, 1, 0, 2 + next.len() as i16, 0));
    program.extend([set(1, -1), atomic_add(R0, 1, 0, 0)]);
    program.extend(&next);
    program.extend([copy(1, INDEX), shift_left(1, 3), add(COUNTERS, 1), set(2, 1), atomic_add(COUNTERS, 2, 8, 0)]);
    program.extend([copy(R0, INDEX), exit]);
    let end = program.len();
    for (at, instruction) in program.iter_mut().enumerate() {
        if matches!(instruction.code, 0x15 | 0x25) {
            instruction.offset = (end - at - 1) as i16;
        }
    }
    // No socket has this number: the kernel then uses its own hash.
    program.extend([set(R0, -1), exit]);
    program
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "program_tests.rs"]
mod tests;
