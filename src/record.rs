//! The one format of everything that crosses from one binary of clusterd to another: packets between keeper and master,
//! the keeper's state at its reexec, spawn descriptions, the master's checkpoint. Pure.
//!
//! A **record** is a list of fields: a tag (one byte), a length (LEB128), so many bytes. A **variant** is a byte for its
//! kind, then the record of its fields. Numbers are little-endian without their trailing zero bytes; lists are items,
//! each with its length before it. `record!` and `variants!` write both directions from one table of tags, so a type
//! needs no code of its own and the two directions cannot disagree.
//!
//! Binaries of different versions read each other: fields with an unknown tag are ignored, absent ones have the default
//! that their table names, and items of an unknown kind in a list are left out. What has no default must be there. Tags and
//! kinds are never used for anything else again. Only a change of meaning needs a new [`VERSION`].
//!
//! A **document** is a record that is stored: a mark, the version, the length and a checksum stand before it, so that one
//! that was cut, damaged, or written by a later version is refused as a whole.
use crate::ids::{Generation, Slot, WorkerId};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use thiserror::Error;

/// The version that this binary writes, and the last one that it reads.
pub const VERSION: u16 = 2;
/// Items of one list. The longest are arguments and environments, of which the kernel takes fewer.
pub const LIST_ITEMS_MAX: usize = 256 * 1024;
/// No text begins like this: a program that only repeats a document answers nothing that clusterd would say.
const MARK: &[u8] = b"\x93cluster";
/// Mark, version, length, checksum.
const HEADER_BYTES: usize = MARK.len() + 2 + 4 + 8;

/// Why bytes cannot be read as a value, or a value cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    /// The bytes end inside this field.
    #[error("it ends inside its {0}")]
    Short(&'static str),
    /// This field has no default and is absent.
    #[error("it has no {0}")]
    Missing(&'static str),
    /// This field is longer than its bound, in bytes or items.
    #[error("its {field} is {is} long; the most is {max}")]
    TooLong { field: &'static str, is: usize, max: usize },
    /// This field has a value that means nothing.
    #[error("its {0} is not valid")]
    Bad(&'static str),
    /// A variant that only another version knows.
    #[error("it is of the unknown kind {0}")]
    Unknown(u8),
    /// A document without the mark.
    #[error("clusterd did not write it")]
    Foreign,
    /// A document of a later version.
    #[error("it has version {0}; this binary reads up to {VERSION}")]
    Newer(u16),
    /// A document whose length or checksum is wrong.
    #[error("it is damaged")]
    Damaged,
}

/// A value of a field.
pub trait Value: Sized {
    /// Appends the value.
    ///
    /// # Errors A field or a list in it exceeds its bound.
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), RecordError>;

    /// Decodes the value from all of `bytes`. `field` is for the error.
    ///
    /// # Errors The bytes are invalid.
    fn decode(bytes: &[u8], field: &'static str) -> Result<Self, RecordError>;

    /// Whether its field is left out.
    fn is_absent(&self) -> bool {
        false
    }

    /// The default for an absent field; `None` if the field is required.
    fn absent() -> Option<Self> {
        None
    }

    /// Appends several values.
    ///
    /// # Errors
    /// As [`Value::encode`].
    fn encode_list<'a>(items: impl Iterator<Item = &'a Self>, out: &mut Vec<u8>) -> Result<(), RecordError>
    where
        Self: 'a,
    {
        let mut count = 0;
        for item in items {
            count += 1;
            within("number of items", count, LIST_ITEMS_MAX)?;
            let start = out.len();
            item.encode(out)?;
            insert_length(out, start);
        }
        Ok(())
    }

    /// Decodes several values. Values of an unknown kind are left out.
    ///
    /// # Errors
    /// As [`Value::decode`].
    fn decode_list(mut bytes: &[u8], field: &'static str) -> Result<Vec<Self>, RecordError> {
        let mut items = Vec::new();
        while !bytes.is_empty() {
            within("number of items", items.len() + 1, LIST_ITEMS_MAX)?;
            match Self::decode(take_counted(&mut bytes, field)?, field) {
                Ok(item) => items.push(item),
                Err(RecordError::Unknown(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(items)
    }
}

/// The bound on the bytes of a field.
#[derive(Clone, Copy, Debug)]
pub enum Bound {
    /// Only the bound of the whole.
    None,
    /// A longer value is an error, in both directions.
    Max(usize),
    /// For text: the writer cuts it at the end of a character. A longer value is an error for the reader.
    Cut(usize),
}

/// Encodes a value.
///
/// # Errors A field exceeds its bound.
pub fn encode<T: Value>(value: &T) -> Result<Vec<u8>, RecordError> {
    let mut out = Vec::new();
    value.encode(&mut out)?;
    Ok(out)
}

/// Decodes a value from all of `bytes`.
///
/// # Errors The bytes are invalid.
pub fn decode<T: Value>(bytes: &[u8]) -> Result<T, RecordError> {
    T::decode(bytes, "record")
}

/// Encodes a value as a document.
///
/// # Errors A field exceeds its bound, or the whole exceeds 4 GiB.
pub fn to_document<T: Value>(value: &T) -> Result<Vec<u8>, RecordError> {
    seal(&encode(value)?)
}

/// Decodes a document.
///
/// # Errors The bytes are not a document, damaged, of a later version, or contain an invalid record.
pub fn from_document<T: Value>(bytes: &[u8]) -> Result<T, RecordError> {
    decode(open(bytes)?)
}

/// Puts the header before an encoded record.
///
/// # Errors The record exceeds 4 GiB.
pub fn seal(record: &[u8]) -> Result<Vec<u8>, RecordError> {
    let too_long = RecordError::TooLong { field: "record", is: record.len(), max: u32::MAX as usize };
    let length = u32::try_from(record.len()).map_err(|_| too_long)?;
    let mut out = Vec::with_capacity(HEADER_BYTES + record.len());
    out.extend_from_slice(MARK);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&checksum(record).to_le_bytes());
    out.extend_from_slice(record);
    Ok(out)
}

/// The record of a document.
///
/// # Errors The bytes are not a document, damaged, or of a later version.
pub fn open(bytes: &[u8]) -> Result<&[u8], RecordError> {
    let rest = bytes.strip_prefix(MARK).ok_or(RecordError::Foreign)?;
    let (version, rest) = rest.split_first_chunk().ok_or(RecordError::Damaged)?;
    let version = u16::from_le_bytes(*version);
    if version > VERSION {
        return Err(RecordError::Newer(version));
    }
    let (length, rest) = rest.split_first_chunk().ok_or(RecordError::Damaged)?;
    let (sum, record) = rest.split_first_chunk().ok_or(RecordError::Damaged)?;
    let whole = u64::from(u32::from_le_bytes(*length)) == record.len() as u64;
    if whole && u64::from_le_bytes(*sum) == checksum(record) { Ok(record) } else { Err(RecordError::Damaged) }
}

/// FNV-1a over words of eight bytes: fast, and every change of a single byte changes the result.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(0xcbf2_9ce4_8422_2325, |sum: u64, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        (sum ^ u64::from_le_bytes(word)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

// ---- functions for the macros ----

/// Appends a field, unless it is absent.
///
/// # Errors The field, or a part of it, exceeds its bound.
pub fn put<T: Value>(
    out: &mut Vec<u8>,
    tag: u8,
    field: &'static str,
    value: &T,
    bound: Bound,
) -> Result<(), RecordError> {
    if value.is_absent() {
        return Ok(());
    }
    out.push(tag);
    let start = out.len();
    value.encode(out)?;
    match bound {
        Bound::None => {}
        Bound::Max(max) => within(field, out.len() - start, max)?,
        Bound::Cut(max) => {
            let mut end = out.len().min(start + max);
            // Never inside a character: those bytes begin with the bits 10.
            while out.get(end).is_some_and(|byte| byte & 0xc0 == 0x80) {
                end -= 1;
            }
            out.truncate(end);
        }
    }
    insert_length(out, start);
    Ok(())
}

/// Decodes a field.
///
/// # Errors The field exceeds its bound, or is invalid.
pub fn value<T: Value>(bytes: &[u8], field: &'static str, bound: Bound) -> Result<T, RecordError> {
    if let Bound::Max(max) | Bound::Cut(max) = bound {
        within(field, bytes.len(), max)?;
    }
    match T::decode(bytes, field) {
        // Only a whole message, or an item of a list, can be ignored.
        Err(RecordError::Unknown(_)) => Err(RecordError::Bad(field)),
        decoded => decoded,
    }
}

/// Removes the next field from a record. Returns its tag and its bytes.
///
/// # Errors The record ends inside the field.
pub fn next_field<'a>(record: &mut &'a [u8]) -> Result<Option<(u8, &'a [u8])>, RecordError> {
    let Some((tag, rest)) = record.split_first() else { return Ok(None) };
    *record = rest;
    Ok(Some((*tag, take_counted(record, "last field")?)))
}

/// Checks a bound.
///
/// # Errors The bound is exceeded.
pub fn within(field: &'static str, is: usize, max: usize) -> Result<(), RecordError> {
    if is > max { Err(RecordError::TooLong { field, is, max }) } else { Ok(()) }
}

fn take_counted<'a>(bytes: &mut &'a [u8], field: &'static str) -> Result<&'a [u8], RecordError> {
    let (mut length, mut shift) = (0_u64, 0);
    loop {
        let (byte, rest) = bytes.split_first().ok_or(RecordError::Short(field))?;
        *bytes = rest;
        length |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
        shift += 7;
        if shift > 28 {
            return Err(RecordError::Bad(field));
        }
    }
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let (taken, rest) = bytes.split_at_checked(length).ok_or(RecordError::Short(field))?;
    *bytes = rest;
    Ok(taken)
}

/// Inserts the length of everything after `start` there.
fn insert_length(out: &mut Vec<u8>, start: usize) {
    let mut length = out.len() - start;
    let mut coded = [0_u8; 10];
    let mut count = 0;
    loop {
        coded[count] = (length & 0x7f) as u8 | if length > 0x7f { 0x80 } else { 0 };
        count += 1;
        length >>= 7;
        if length == 0 {
            break;
        }
    }
    out.splice(start..start, coded[..count].iter().copied());
}

macro_rules! bound {
    () => {
        $crate::record::Bound::None
    };
    (max $bound:path) => {
        $crate::record::Bound::Max($bound)
    };
    (cut $bound:path) => {
        $crate::record::Bound::Cut($bound)
    };
}

macro_rules! or_default {
    ($field:ident) => {
        $crate::record::Value::absent().ok_or($crate::record::RecordError::Missing(stringify!($field)))?
    };
    ($field:ident $default:expr) => {
        $default
    };
}

/// Decodes the fields of a record into variables with their names.
macro_rules! read_fields {
    ($bytes:expr; $($tag:literal $field:ident $([$kind:ident $bound:path])? $(= $default:expr)?;)*) => {
        $(let mut $field = None;)*
        let mut record: &[u8] = $bytes;
        while let Some((tag, bytes)) = $crate::record::next_field(&mut record)? {
            match tag {
                $($tag => {
                    let bound = $crate::record::bound!($($kind $bound)?);
                    $field = Some($crate::record::value(bytes, stringify!($field), bound)?);
                })*
                // Of another version.
                _ => _ = bytes,
            }
        }
        $(let $field = match $field {
            Some(value) => value,
            None => $crate::record::or_default!($field $($default)?),
        };)*
    };
}

/// Makes a struct a record: `record! { Type { 1 field; 2 name [max NAME_BYTES_MAX]; 3 later = 0; } }`. The tag of each
/// field, its bound, and the default of one that may be absent.
macro_rules! record {
    ($type:ident $(<$life:lifetime>)? {
        $($tag:literal $field:ident $([$kind:ident $bound:path])? $(= $default:expr)?;)*
    }) => {
        impl $(<$life>)? $crate::record::Value for $type $(<$life>)? {
            fn encode(&self, out: &mut Vec<u8>) -> Result<(), $crate::record::RecordError> {
                let $type { $($field),* } = self;
                $($crate::record::put(
                    out, $tag, stringify!($field), $field, $crate::record::bound!($($kind $bound)?),
                )?;)*
                Ok(())
            }

            fn decode(bytes: &[u8], _: &'static str) -> Result<Self, $crate::record::RecordError> {
                $crate::record::read_fields!(bytes; $($tag $field $([$kind $bound])? $(= $default)?;)*);
                Ok($type { $($field),* })
            }
        }
    };
}

/// Makes an enum a variant: `variants! { Type { 1 First { 1 field; } 2 Second {} } }`, each kind with the table of its
/// fields as in [`record!`]. After `else`: what a kind that is not known stands for; without it, such a kind is
/// [`RecordError::Unknown`].
macro_rules! variants {
    ($type:ident {
        $($number:literal $variant:ident {
            $($tag:literal $field:ident $([$kind:ident $bound:path])? $(= $default:expr)?;)*
        })*
    } $(else $other:expr)?) => {
        impl $crate::record::Value for $type {
            fn encode(&self, out: &mut Vec<u8>) -> Result<(), $crate::record::RecordError> {
                match self {
                    $($type::$variant { $($field),* } => {
                        out.push($number);
                        $($crate::record::put(
                            out, $tag, stringify!($field), $field, $crate::record::bound!($($kind $bound)?),
                        )?;)*
                    })*
                }
                Ok(())
            }

            fn decode(bytes: &[u8], _: &'static str) -> Result<Self, $crate::record::RecordError> {
                let (number, rest) = bytes.split_first().ok_or($crate::record::RecordError::Short("kind"))?;
                match number {
                    $($number => {
                        $crate::record::read_fields!(rest; $($tag $field $([$kind $bound])? $(= $default)?;)*);
                        Ok($type::$variant { $($field),* })
                    })*
                    number => $crate::record::unknown!(*number; $($other)?),
                }
            }
        }
    };
}

macro_rules! unknown {
    ($number:expr;) => {
        Err($crate::record::RecordError::Unknown($number))
    };
    ($number:expr; $other:expr) => {{
        let _ = $number;
        Ok($other)
    }};
}

pub(crate) use {bound, or_default, read_fields, record, unknown, variants};

// ---- values ----

impl Value for u64 {
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), RecordError> {
        let bytes = self.to_le_bytes();
        let used = bytes.len() - self.leading_zeros() as usize / 8;
        out.extend_from_slice(&bytes[..used]);
        Ok(())
    }

    fn decode(bytes: &[u8], field: &'static str) -> Result<u64, RecordError> {
        let mut all = [0; 8];
        all.get_mut(..bytes.len()).ok_or(RecordError::Bad(field))?.copy_from_slice(bytes);
        Ok(u64::from_le_bytes(all))
    }
}

/// Numbers that are written as a `u64`.
macro_rules! as_u64 {
    ($($type:ty)*) => {
        $(impl Value for $type {
            fn encode(&self, out: &mut Vec<u8>) -> Result<(), RecordError> {
                u64::try_from(*self).unwrap_or(u64::MAX).encode(out)
            }

            fn decode(bytes: &[u8], field: &'static str) -> Result<Self, RecordError> {
                u64::decode(bytes, field)?.try_into().map_err(|_| RecordError::Bad(field))
            }
        })*
    };
}

as_u64!(u16 u32 usize);

/// Newtypes of numbers.
macro_rules! as_inner {
    ($($type:ident)*) => {
        $(impl Value for $type {
            fn encode(&self, out: &mut Vec<u8>) -> Result<(), RecordError> {
                self.0.encode(out)
            }

            fn decode(bytes: &[u8], field: &'static str) -> Result<Self, RecordError> {
                Value::decode(bytes, field).map($type)
            }
        })*
    };
}

as_inner!(WorkerId Slot Generation);

impl Value for i32 {
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), RecordError> {
        // Zigzag: small numbers stay short whatever their sign.
        ((self << 1) ^ (self >> 31)).cast_unsigned().encode(out)
    }

    fn decode(bytes: &[u8], field: &'static str) -> Result<i32, RecordError> {
        let coded = u32::decode(bytes, field)?;
        Ok((coded >> 1).cast_signed() ^ -(coded & 1).cast_signed())
    }
}

impl Value for bool {
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), RecordError> {
        u64::from(*self).encode(out)
    }

    fn decode(bytes: &[u8], field: &'static str) -> Result<bool, RecordError> {
        match u64::decode(bytes, field)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(RecordError::Bad(field)),
        }
    }
}

impl Value for u8 {
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), RecordError> {
        out.push(*self);
        Ok(())
    }

    fn decode(bytes: &[u8], field: &'static str) -> Result<u8, RecordError> {
        if let [byte] = bytes { Ok(*byte) } else { Err(RecordError::Bad(field)) }
    }

    fn encode_list<'a>(items: impl Iterator<Item = &'a u8>, out: &mut Vec<u8>) -> Result<(), RecordError> {
        out.extend(items);
        Ok(())
    }

    fn decode_list(bytes: &[u8], _: &'static str) -> Result<Vec<u8>, RecordError> {
        Ok(bytes.to_vec())
    }
}

impl Value for String {
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), RecordError> {
        out.extend_from_slice(self.as_bytes());
        Ok(())
    }

    fn decode(bytes: &[u8], field: &'static str) -> Result<String, RecordError> {
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| RecordError::Bad(field))
    }
}

impl<T: Value> Value for Option<T> {
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), RecordError> {
        self.as_ref().map_or(Ok(()), |value| value.encode(out))
    }

    fn decode(bytes: &[u8], field: &'static str) -> Result<Self, RecordError> {
        T::decode(bytes, field).map(Some)
    }

    fn is_absent(&self) -> bool {
        self.is_none()
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

impl<T: Value, E: Value> Value for Result<T, E> {
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), RecordError> {
        out.push(if self.is_ok() { 1 } else { 2 });
        let start = out.len();
        match self {
            Ok(value) => value.encode(out)?,
            Err(error) => error.encode(out)?,
        }
        insert_length(out, start);
        Ok(())
    }

    fn decode(bytes: &[u8], _: &'static str) -> Result<Self, RecordError> {
        let mut rest = bytes;
        match next_field(&mut rest)? {
            Some((1, bytes)) => value(bytes, "ok", Bound::None).map(Ok),
            Some((2, bytes)) => value(bytes, "error", Bound::None).map(Err),
            Some((kind, _)) => Err(RecordError::Unknown(kind)),
            None => Err(RecordError::Short("kind")),
        }
    }
}

macro_rules! lists {
    ($($list:ident<$($bound:ident)?>)*) => {
        $(impl<T: Value $(+ $bound)?> Value for $list<T> {
            fn encode(&self, out: &mut Vec<u8>) -> Result<(), RecordError> {
                T::encode_list(self.iter(), out)
            }

            fn decode(bytes: &[u8], field: &'static str) -> Result<Self, RecordError> {
                Ok(T::decode_list(bytes, field)?.into_iter().collect())
            }

            fn is_absent(&self) -> bool {
                self.is_empty()
            }

            fn absent() -> Option<Self> {
                Some($list::new())
            }
        })*
    };
}

lists!(Vec<> VecDeque<> BTreeSet<Ord>);

impl<K: Value + Ord + Clone, V: Value + Clone> Value for BTreeMap<K, V> {
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), RecordError> {
        let entries: Vec<(K, V)> = self.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        entries.encode(out)
    }

    fn decode(bytes: &[u8], field: &'static str) -> Result<Self, RecordError> {
        Ok(<(K, V)>::decode_list(bytes, field)?.into_iter().collect())
    }

    fn is_absent(&self) -> bool {
        self.is_empty()
    }

    fn absent() -> Option<Self> {
        Some(BTreeMap::new())
    }
}

impl<A: Value, B: Value> Value for (A, B) {
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), RecordError> {
        put(out, 1, "first", &self.0, Bound::None)?;
        put(out, 2, "second", &self.1, Bound::None)
    }

    fn decode(bytes: &[u8], _: &'static str) -> Result<Self, RecordError> {
        read_fields!(bytes; 1 first; 2 second;);
        Ok((first, second))
    }
}

impl<A: Value, B: Value, C: Value> Value for (A, B, C) {
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), RecordError> {
        put(out, 1, "first", &self.0, Bound::None)?;
        put(out, 2, "second", &self.1, Bound::None)?;
        put(out, 3, "third", &self.2, Bound::None)
    }

    fn decode(bytes: &[u8], _: &'static str) -> Result<Self, RecordError> {
        read_fields!(bytes; 1 first; 2 second; 3 third;);
        Ok((first, second, third))
    }
}

impl Value for Cow<'_, str> {
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), RecordError> {
        out.extend_from_slice(self.as_bytes());
        Ok(())
    }

    fn decode(bytes: &[u8], field: &'static str) -> Result<Self, RecordError> {
        String::decode(bytes, field).map(Cow::Owned)
    }
}

impl<T: Value + Clone> Value for Cow<'_, [T]> {
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), RecordError> {
        T::encode_list(self.iter(), out)
    }

    fn decode(bytes: &[u8], field: &'static str) -> Result<Self, RecordError> {
        T::decode_list(bytes, field).map(Cow::Owned)
    }

    fn is_absent(&self) -> bool {
        self.is_empty()
    }

    fn absent() -> Option<Self> {
        Some(Cow::Owned(Vec::new()))
    }
}

impl<T: Value + Clone> Value for Cow<'_, T> {
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), RecordError> {
        self.as_ref().encode(out)
    }

    fn decode(bytes: &[u8], field: &'static str) -> Result<Self, RecordError> {
        T::decode(bytes, field).map(Cow::Owned)
    }
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
