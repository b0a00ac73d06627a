//! The programs keep their promises, on an interpreter written for the test.
use super::*;
use std::collections::BTreeMap;

/// A UDP packet, as a program sees it.
struct Packet {
    bytes: Vec<u8>,
    random: u32,
}

fn packet_v4(source: [u8; 4], port: u16) -> Packet {
    let mut bytes = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, 17, 0, 0];
    bytes.extend(source);
    bytes.extend([127, 0, 0, 1]);
    bytes.extend(port.to_be_bytes());
    bytes.extend([0x1f, 0x90, 0, 20, 0, 0]);
    Packet { bytes, random: 0 }
}

fn packet_v6(last: u8, port: u16) -> Packet {
    let mut bytes = vec![0x60, 0, 0, 0, 0, 20, 17, 64];
    bytes.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    bytes.extend([0; 16]);
    bytes.extend(port.to_be_bytes());
    bytes.extend([0x1f, 0x90, 0, 20, 0, 0]);
    Packet { bytes, random: 0 }
}

/// Interprets a program that uses the instructions of this module.
fn run(program: &[Classic], packet: &Packet) -> u32 {
    let byte = |k: u32| u32::from(packet.bytes[k.wrapping_sub(NET) as usize]);
    let half = |k: u32| byte(k) << 8 | byte(k.wrapping_add(1));
    let (mut a, mut x, mut memory, mut at) = (0_u32, 0_u32, 0_u32, 0_usize);
    loop {
        let Classic { code, jump_true, jump_false, k } = program[at];
        at += 1;
        let jump = |holds: bool| usize::from(if holds { jump_true } else { jump_false });
        match code {
            LD_W_ABS if k == RANDOM => a = packet.random,
            LD_W_ABS => a = half(k) << 16 | half(k.wrapping_add(2)),
            LD_H_ABS => a = half(k),
            LD_B_ABS => a = byte(k),
            LD_H_IND => a = half(k.wrapping_add(x)),
            LDX_B_MSH => x = 4 * (byte(k) & 15),
            LDX_MEM => x = memory,
            ST => memory = a,
            TAX => x = a,
            ADD_K => a = a.wrapping_add(k),
            MUL_K => a = a.wrapping_mul(k),
            RSH_K => a >>= k,
            MOD_K => a %= k,
            XOR_X => a ^= x,
            JUMP => at += k as usize,
            JUMP_EQ => at += jump(a == k),
            JUMP_GE => at += jump(a >= k),
            RET_K => return k,
            RET_A => return a,
            _ => panic!("unknown instruction {code:#x}"),
        }
    }
}

/// The results of a program for each of these random words.
fn by_word(selected: &[u32], words: u32) -> BTreeMap<u32, u32> {
    let program = by_chance(selected).unwrap();
    assert!(program.len() <= INSTRUCTIONS_MAX, "{} instructions", program.len());
    let mut got = BTreeMap::new();
    for random in 0..words {
        *got.entry(run(&program, &Packet { bytes: Vec::new(), random })).or_default() += 1;
    }
    got
}

#[test]
fn chance_meets_each_selected_socket_as_often_and_no_other() {
    assert_eq!(by_chance(&[]), None);
    let all: Vec<u32> = (0..1000).collect();
    let even: Vec<u32> = (0..1000).filter(|n| n % 2 == 0).collect();
    let holes: Vec<u32> = (0..1000).filter(|n| n % 7 != 3 && n % 64 != 0).collect();
    for selected in [&[5][..], &[0, 1, 2, 3], &[1, 3], &[0, 2, 3, 9], &[7, 8], &all, &even, &holes] {
        let got = by_word(selected, selected.len() as u32 * 3);
        assert_eq!(got.keys().copied().collect::<Vec<_>>(), selected);
        assert!(got.values().all(|&times| times == 3), "{got:?}");
    }
    assert_eq!(by_chance(&all).unwrap().len(), 3, "a whole range needs no table");
}

#[test]
fn a_set_too_ragged_for_one_program_loses_its_shortest_runs() {
    // Every other one of 4096, and one long run.
    let mut selected: Vec<u32> = (0..4000).filter(|n| n % 2 == 0).collect();
    selected.extend(4000..4096);
    let got = by_word(&selected, 20_000);
    assert!((4000..4096).all(|index| got.contains_key(&index)));
    assert!(got.keys().all(|index| selected.binary_search(index).is_ok()));
    assert!(got.len() > 1000, "{}", got.len());
}

#[test]
fn flows_stay_and_only_those_of_a_lost_socket_move() {
    let flows = || {
        let four = (0..2000_u32).map(|n| packet_v4([10, 0, (n >> 8) as u8, n as u8], 1024 + (n * 7) as u16));
        four.chain((0..2000_u32).map(|n| packet_v6(n as u8, 1024 + (n * 7) as u16)))
    };
    let place = |program: &[Classic]| flows().map(|packet| run(program, &packet)).collect::<Vec<u32>>();
    let all: Vec<u32> = (0..8).collect();
    let before = place(&by_flow(8, &all).unwrap());
    for index in &all {
        let share = before.iter().filter(|place| *place == index).count();
        assert!((400..600).contains(&share), "socket {index} has {share} of 4000 flows");
    }
    let without: Vec<u32> = (0..8).filter(|n| *n != 3).collect();
    let after = place(&by_flow(8, &without).unwrap());
    assert!(before.iter().zip(&after).all(|(b, a)| if *b == 3 { *a != 3 } else { a == b }));
    assert_eq!(by_flow(8, &[]), None);
}

#[test]
fn a_flow_is_told_by_its_address_and_by_its_port() {
    let program = by_flow(64, &(0..64).collect::<Vec<_>>()).unwrap();
    let count = |packets: Vec<Packet>| {
        packets.iter().map(|packet| run(&program, packet)).collect::<std::collections::BTreeSet<_>>().len()
    };
    assert!(count((0..200).map(|n| packet_v4([10, 0, 0, n], 5000)).collect()) > 40);
    assert!(count((0..200).map(|n| packet_v4([10, 0, 0, 1], 5000 + n)).collect()) > 40);
    assert!(count((0..200).map(|n| packet_v6(n, 5000)).collect()) > 40);
    assert!(count((0..200).map(|n| packet_v6(1, 5000 + n)).collect()) > 40);
    // Options of the IP header move the port, and nothing else changes.
    let mut long = packet_v4([10, 0, 0, 1], 5000);
    long.bytes[0] = 0x46;
    long.bytes.splice(20..20, [1, 1, 1, 1]);
    assert_eq!(run(&program, &long), run(&program, &packet_v4([10, 0, 0, 1], 5000)));
}

#[test]
fn programs_for_the_most_workers_fit() {
    let odd: Vec<u32> = (0..4096).filter(|n| n % 2 == 1).collect();
    for selected in [&odd[..], &[17], &odd[..900]] {
        let program = by_flow(4096, selected).unwrap();
        assert!(program.len() <= INSTRUCTIONS_MAX, "{} instructions", program.len());
        for n in 0..500 {
            let to = run(&program, &packet_v4([10, 1, 2, 3], n * 131));
            // The last run stands for all that did not fit.
            assert!(selected.binary_search(&to).is_ok(), "{to}");
        }
        assert!(by_chance(selected).unwrap().len() <= INSTRUCTIONS_MAX);
    }
}

#[test]
fn turns_give_up_at_their_end_alone() {
    let program = by_turns(3, 4, 6, 5, 8);
    let end = program.len() - 2;
    for (at, instruction) in program.iter().enumerate() {
        if matches!(instruction.code, 0x15 | 0x25) {
            assert_eq!(at + 1 + instruction.offset as usize, end);
        }
    }
    let maps: Vec<i32> = program.iter().filter(|i| i.code == 0x18).map(|i| i.constant).collect();
    assert_eq!(maps, [3, 4, 6, 4]);
}
