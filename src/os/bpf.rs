//! bpf(2), which libc does not wrap: array maps of one element, and programs that choose a socket. Instructions come as
//! bytes, laid out as `struct bpf_insn`; their meaning is up to the caller.
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// An array map with one element of a fixed size, initially zero.
#[derive(Debug)]
pub struct Map {
    fd: OwnedFd,
    value_bytes: u32,
}

/// A loaded program that chooses a socket.
#[derive(Debug)]
pub struct Program(pub(super) OwnedFd);

impl Map {
    /// A map with an element of this size.
    ///
    /// # Errors
    /// EPERM without CAP_BPF; other errors mean that there is no eBPF.
    pub fn new(value_bytes: u32) -> io::Result<Map> {
        let description = NewMap { kind: BPF_MAP_TYPE_ARRAY, key_bytes: KEY_BYTES, value_bytes, entries: 1, flags: 0 };
        // SAFETY: `description` is what BPF_MAP_CREATE reads, and holds no pointers. The kernel returns a new fd,
        // close-on-exec, that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(bpf(BPF_MAP_CREATE, &description)?) };
        Ok(Map { fd, value_bytes })
    }

    /// The number by which instructions refer to the map while a program is loaded.
    pub fn number(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// Writes the element.
    ///
    /// # Errors
    /// `InvalidInput` when the size of `value` is not that of the element; those of bpf(2).
    pub fn write(&self, value: &[u8]) -> io::Result<()> {
        if value.len() != self.value_bytes as usize {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let key = 0_u32;
        let element = self.element(&key, value.as_ptr() as u64);
        // SAFETY: the key has the map's KEY_BYTES and `value` exactly its `value_bytes`, which was just compared. The kernel
        // reads both, during the call only.
        unsafe { bpf(BPF_MAP_UPDATE_ELEM, &element) }.map(|_| ())
    }

    ///
    /// # Errors
    /// Those of bpf(2).
    pub fn read(&self) -> io::Result<Vec<u8>> {
        let mut value = vec![0_u8; self.value_bytes as usize];
        let key = 0_u32;
        let element = self.element(&key, value.as_mut_ptr() as u64);
        // SAFETY: the key has the map's KEY_BYTES. The kernel writes the map's `value_bytes` to `value`, which has as many,
        // lives through the call and is borrowed by nobody else.
        unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &element) }?;
        Ok(value)
    }

    fn element(&self, key: &u32, value: u64) -> Element {
        Element { map: self.fd.as_raw_fd() as u32, pad: 0, key: std::ptr::from_ref(key) as u64, value, flags: 0 }
    }
}

impl Program {
    /// Has the kernel verify and load a program.
    ///
    /// # Errors
    /// EPERM without CAP_BPF; EINVAL or EACCES for a program that the kernel does not accept.
    pub fn load(instructions: &[[u8; 8]]) -> io::Result<Program> {
        let description = NewProgram {
            kind: BPF_PROG_TYPE_SOCKET_FILTER,
            instructions: instructions.len() as u32,
            code: instructions.as_ptr() as u64,
            license: c"MIT".as_ptr() as u64,
            log_level: 0,
            log_bytes: 0,
            log: 0,
            kernel_version: 0,
            flags: 0,
        };
        // SAFETY: `code` points to `instructions` times 8 bytes and `license` to a string that ends with a zero; the kernel
        // only reads them, during the call only. No log is asked for. The kernel returns a new fd, close-on-exec, that
        // nobody else owns.
        unsafe { Ok(Program(OwnedFd::from_raw_fd(bpf(BPF_PROG_LOAD, &description)?))) }
    }
}

const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_PROG_TYPE_SOCKET_FILTER: u32 = 1;
const KEY_BYTES: u32 = size_of::<u32>() as u32;

#[repr(C)]
struct NewMap {
    kind: u32,
    key_bytes: u32,
    value_bytes: u32,
    entries: u32,
    flags: u32,
}

#[repr(C)]
struct Element {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct NewProgram {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
    log_level: u32,
    log_bytes: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// # Safety
/// `argument` is the structure that the command reads. Each address in it points to memory that lives through the call and
/// has the size that the command takes for it; memory that the command writes is borrowed by nobody else.
unsafe fn bpf<T>(command: libc::c_int, argument: &T) -> io::Result<libc::c_int> {
    // SAFETY: the kernel reads the size_of::<T>() bytes of `argument`, which is borrowed; the rest is the caller's promise.
    let said = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *argument, size_of::<T>() as libc::c_uint) };
    if said < 0 { Err(io::Error::last_os_error()) } else { Ok(said as libc::c_int) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know bpf(2)")]
    fn an_element_is_written_whole_or_not_at_all() {
        // Without eBPF there is nothing to test.
        let Ok(map) = Map::new(16) else { return };
        assert_eq!(map.read().unwrap(), [0; 16]);
        for wrong in [0, 15, 17] {
            assert_eq!(map.write(&vec![1; wrong]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
        assert_eq!(map.read().unwrap(), [0; 16]);
        map.write(&[7; 16]).unwrap();
        assert_eq!(map.read().unwrap(), [7; 16]);
    }
}
