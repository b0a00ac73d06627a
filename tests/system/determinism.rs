//! What makes a seed the same world each time, and worlds quick: the random numbers of the process, and the CPU that it runs on.
use std::cell::Cell;

thread_local! {
    /// The state of the numbers of each thread.
    static NUMBERS: Cell<u64> = const { Cell::new(0) };
}

/// In the place of the one of libc: std chooses the order of its hash maps by it, once in each thread, and each simulated process is a
/// thread of its own.
///
/// # Safety
/// As getrandom(2): `bytes` has room for `length` bytes.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn getrandom(bytes: *mut u8, length: usize, _flags: u32) -> isize {
    for n in 0..length {
        let next = NUMBERS.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        NUMBERS.set(next);
        // SAFETY: the caller has room for that many bytes.
        unsafe { bytes.add(n).write((next >> 56) as u8) };
    }
    isize::try_from(length).unwrap_or(isize::MAX)
}

/// Keeps this process on one CPU: of its threads one runs at a time, and to wake one on another CPU that rests takes longer than its turn.
pub(crate) fn stay_on_one_cpu(part: u64) {
    // SAFETY: a set of bits is valid when it is zero.
    let mut allowed: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes at most the size of the set.
    if unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut allowed) } != 0 {
        return;
    }
    // SAFETY: the number is below that of the bits.
    let is_in = |cpu: &usize| unsafe { libc::CPU_ISSET(*cpu, &allowed) };
    let cpus: Vec<usize> = (0..libc::CPU_SETSIZE as usize).filter(is_in).collect();
    let Some(cpu) = cpus.get(part as usize % cpus.len().max(1)) else { return };
    // SAFETY: as above.
    let mut own: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    unsafe { libc::CPU_SET(*cpu, &mut own) };
    // SAFETY: the kernel reads the set. Where it refuses, worlds are slower.
    unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const own) };
}
