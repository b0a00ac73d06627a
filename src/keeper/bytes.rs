//! The pieces that messages and the keeper's state are written from and read into: integers, text, lists. Pure; what
//! they mean is in `codec` and `state`.
use super::protocol::Credentials;
use crate::ids::WorkerId;
use crate::limits::{KEEPER_NAME_BYTES_MAX, KEEPER_PACKET_BYTES_MAX};
use std::fmt;

/// Why bytes are no message, or a message cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CodecError {
    /// The bytes end inside this field, or before one that must be there.
    Short(&'static str),
    /// This field is longer than its bound, in bytes or entries.
    TooLong { field: &'static str, is: usize, max: usize },
    /// This field has a value that means nothing.
    Bad(&'static str),
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CodecError::Short(field) => write!(f, "it ends before or inside its {field}"),
            CodecError::TooLong { field, is, max } => write!(f, "its {field} is {is} long; the most is {max}"),
            CodecError::Bad(field) => write!(f, "its {field} makes no sense"),
        }
    }
}

impl std::error::Error for CodecError {}

pub(super) fn within(field: &'static str, is: usize, max: usize) -> Result<(), CodecError> {
    if is > max { Err(CodecError::TooLong { field, is, max }) } else { Ok(()) }
}

/// The text's beginning, at most so many bytes, never ending inside a character.
pub(super) fn beginning(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[derive(Default)]
pub(super) struct Writer {
    pub(super) bytes: Vec<u8>,
}

impl Writer {
    pub(super) fn finish(self) -> Result<Vec<u8>, CodecError> {
        within("packet", self.bytes.len(), KEEPER_PACKET_BYTES_MAX)?;
        Ok(self.bytes)
    }

    pub(super) fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    pub(super) fn kind(&mut self, kind: u8) -> &mut Self {
        self.put(&[kind])
    }

    pub(super) fn u8(&mut self, value: u8) -> &mut Self {
        self.put(&[value])
    }

    pub(super) fn bool(&mut self, value: bool) -> &mut Self {
        self.put(&[u8::from(value)])
    }

    pub(super) fn u16(&mut self, value: u16) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    pub(super) fn u32(&mut self, value: u32) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    pub(super) fn u64(&mut self, value: u64) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    pub(super) fn i32(&mut self, value: i32) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    pub(super) fn optional_i32(&mut self, value: Option<i32>) -> &mut Self {
        match value {
            None => self.bool(false),
            Some(value) => self.bool(true).i32(value),
        }
    }

    /// A count too large for u32 belongs to a list that is over every bound too.
    pub(super) fn count(&mut self, count: usize) -> &mut Self {
        self.u32(u32::try_from(count).unwrap_or(u32::MAX))
    }

    pub(super) fn bytes(&mut self, field: &'static str, bytes: &[u8], max: usize) -> Result<&mut Self, CodecError> {
        within(field, bytes.len(), max)?;
        Ok(self.count(bytes.len()).put(bytes))
    }

    pub(super) fn name(&mut self, field: &'static str, name: &str) -> Result<&mut Self, CodecError> {
        self.bytes(field, name.as_bytes(), KEEPER_NAME_BYTES_MAX)
    }
}

pub(super) struct Reader<'a> {
    pub(super) rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, field: &'static str, count: usize) -> Result<&'a [u8], CodecError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(CodecError::Short(field))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], CodecError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(CodecError::Short(field))?;
        self.rest = rest;
        Ok(*taken)
    }

    /// A field that a message of an older version may lack.
    pub(super) fn or<T>(
        &mut self,
        default: T,
        read: impl FnOnce(&mut Self) -> Result<T, CodecError>,
    ) -> Result<T, CodecError> {
        if self.rest.is_empty() { Ok(default) } else { read(self) }
    }

    pub(super) fn kind(&mut self) -> Result<u8, CodecError> {
        self.u8("kind")
    }

    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, CodecError> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    pub(super) fn bool(&mut self) -> Result<bool, CodecError> {
        match self.u8("flag")? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(CodecError::Bad("flag")),
        }
    }

    pub(super) fn u16(&mut self, field: &'static str) -> Result<u16, CodecError> {
        self.array(field).map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, CodecError> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, field: &'static str) -> Result<u64, CodecError> {
        self.array(field).map(u64::from_le_bytes)
    }

    pub(super) fn i32(&mut self, field: &'static str) -> Result<i32, CodecError> {
        self.array(field).map(i32::from_le_bytes)
    }

    pub(super) fn worker(&mut self) -> Result<WorkerId, CodecError> {
        self.u64("worker id").map(WorkerId)
    }

    pub(super) fn optional<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, CodecError>,
    ) -> Result<Option<T>, CodecError> {
        if self.bool()? { read(self).map(Some) } else { Ok(None) }
    }

    pub(super) fn optional_i32(&mut self) -> Result<Option<i32>, CodecError> {
        self.optional(|from| from.i32("number"))
    }

    pub(super) fn bytes(&mut self, field: &'static str, max: usize) -> Result<Vec<u8>, CodecError> {
        self.slice(field, max).map(<[u8]>::to_vec)
    }

    /// The same without a copy.
    pub(super) fn slice(&mut self, field: &'static str, max: usize) -> Result<&'a [u8], CodecError> {
        let count = usize::try_from(self.u32(field)?).unwrap_or(usize::MAX);
        within(field, count, max)?;
        self.take(field, count)
    }

    pub(super) fn name(&mut self, field: &'static str) -> Result<String, CodecError> {
        String::from_utf8(self.bytes(field, KEEPER_NAME_BYTES_MAX)?).map_err(|_| CodecError::Bad(field))
    }

    /// A list whose entries take at least `entry_bytes` each: a count that cannot be true allocates nothing.
    pub(super) fn list<T>(
        &mut self,
        field: &'static str,
        entry_bytes: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, CodecError>,
    ) -> Result<Vec<T>, CodecError> {
        let count = usize::try_from(self.u32(field)?).unwrap_or(usize::MAX);
        if count > self.rest.len() / entry_bytes {
            return Err(CodecError::Short(field));
        }
        (0..count).map(|_| read(self)).collect()
    }

    pub(super) fn credentials(&mut self) -> Result<Credentials, CodecError> {
        Ok(Credentials {
            uid: self.u32("user id")?,
            gid: self.u32("group id")?,
            groups: self.list("groups", 4, |from| from.u32("group"))?,
        })
    }
}
