//! From a valid input to one that is not quite: the usual damage, seeded.
use super::random::Random;

/// Inputs grow no longer than this, unless a valid one already is.
const BYTES_MAX: usize = 16 * 1024;

/// Bytes that decoders have opinions on.
const INTERESTING: &[&[u8]] = &[
    b"\n",
    b"\r\n",
    b"\0",
    b"\"",
    b"\\",
    b"\x1b[31m",
    b"\xff",
    b"\x7f",
    b"\xc3",
    b"\xe2\x80\xa8",
    b"\xef\xbb\xbf",
    b"\xf0\x9f\x98\x80",
    b"\xc2\x9b",
    b"-1",
    b"9007199254740993",
    b"18446744073709551616",
    b"1e999",
    b"#",
    b"=",
    b" ",
];

/// One of the corpus with one to six pieces of damage.
pub(crate) fn mutated(random: &mut Random, corpus: &[Vec<u8>], words: &[&[u8]]) -> Vec<u8> {
    let mut input = pick(random, corpus).clone();
    let bytes_max = BYTES_MAX.max(input.len() + 64);
    for _ in 0..random.between(1, 6) {
        damage(random, &mut input, corpus, words);
        input.truncate(bytes_max);
    }
    input
}

fn damage(random: &mut Random, input: &mut Vec<u8>, corpus: &[Vec<u8>], words: &[&[u8]]) {
    let at = random.between(0, input.len() as u64) as usize;
    let until = piece_end(random, at, input.len());
    match random.between(0, 9) {
        0 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << random.between(0, 7);
            }
        }
        1 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = random.next() as u8;
            }
        }
        2 => drop(input.drain(at..until)),
        3 => {
            // The piece again, once or many times.
            let times = if random.percent(10) { random.between(2, 400) } else { 1 };
            let piece = input[at..until].repeat(times as usize);
            put(input, at, &piece);
        }
        4 => {
            let other = pick(random, corpus);
            let from = random.between(0, other.len() as u64) as usize;
            let piece = other[from..piece_end(random, from, other.len())].to_vec();
            put(input, at, &piece);
        }
        5 => put(input, at, pick::<&[u8]>(random, INTERESTING)),
        6 => put(input, at, pick::<&[u8]>(random, words)),
        7 => {
            let word = pick(random, words);
            input.splice(at..until, word.iter().copied());
        }
        8 => input.truncate(at),
        _ => {
            let other = pick(random, corpus).clone();
            input.extend_from_slice(&other);
        }
    }
}

/// Mostly a short piece, sometimes all of the rest.
fn piece_end(random: &mut Random, from: usize, length: usize) -> usize {
    let longest = if random.percent(80) { 24.min(length - from) } else { length - from };
    from + random.between(0, longest as u64) as usize
}

fn put(input: &mut Vec<u8>, at: usize, piece: &[u8]) {
    input.splice(at..at, piece.iter().copied());
}

fn pick<'a, T>(random: &mut Random, list: &'a [T]) -> &'a T {
    &list[random.between(0, list.len() as u64 - 1) as usize]
}
