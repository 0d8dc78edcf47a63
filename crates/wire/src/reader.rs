//! A reader of big-endian fields that never reads past its bytes.

/// The bytes ended inside a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("truncated: {field} needs {wanted} bytes, {left} are left")]
pub struct Truncated {
    /// Name of the field that could not be read.
    pub field: &'static str,
    /// Bytes that the field needs.
    pub wanted: usize,
    /// Bytes that were left.
    pub left: usize,
}

/// Takes fields off the front of a byte slice, in network byte order.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { left: bytes }
    }

    /// Number of bytes that were not read yet.
    pub const fn remaining(&self) -> usize {
        self.left.len()
    }

    /// Takes all bytes that are left.
    pub fn rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.left)
    }

    /// Takes `count` bytes. `field` names them in the error.
    pub fn bytes(&mut self, field: &'static str, count: usize) -> Result<&'a [u8], Truncated> {
        let truncated = Truncated { field, wanted: count, left: self.left.len() };
        let (taken, left) = self.left.split_at_checked(count).ok_or(truncated)?;
        self.left = left;
        Ok(taken)
    }

    /// Takes `N` bytes as an array.
    pub fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Truncated> {
        let truncated = Truncated { field, wanted: N, left: self.left.len() };
        let (taken, left) = self.left.split_first_chunk::<N>().ok_or(truncated)?;
        self.left = left;
        Ok(*taken)
    }

    /// Takes one byte.
    pub fn u8(&mut self, field: &'static str) -> Result<u8, Truncated> {
        self.array(field).map(u8::from_be_bytes)
    }

    /// Takes a 16-bit number.
    pub fn u16(&mut self, field: &'static str) -> Result<u16, Truncated> {
        self.array(field).map(u16::from_be_bytes)
    }

    /// Takes a 32-bit number.
    pub fn u32(&mut self, field: &'static str) -> Result<u32, Truncated> {
        self.array(field).map(u32::from_be_bytes)
    }

    /// Takes a 64-bit number.
    pub fn u64(&mut self, field: &'static str) -> Result<u64, Truncated> {
        self.array(field).map(u64::from_be_bytes)
    }

    /// Takes bytes up to a NUL, which is taken too but not returned. Without a NUL it is an error.
    pub fn cstr(&mut self, field: &'static str) -> Result<&'a [u8], Truncated> {
        let end = self.left.iter().position(|&byte| byte == 0);
        let left = self.left.len();
        let end = end.ok_or(Truncated { field, wanted: left + 1, left })?;
        let text = &self.left[..end];
        self.left = &self.left[end + 1..];
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_off_the_front_in_network_order() {
        let mut reader = Reader::new(b"\x01\x02\x03octet\0\xff");
        assert_eq!(reader.u8("first"), Ok(1));
        assert_eq!(reader.u16("second"), Ok(0x0203));
        assert_eq!(reader.cstr("mode"), Ok(&b"octet"[..]));
        assert_eq!(reader.remaining(), 1);
        assert_eq!(reader.u32("tag"), Err(Truncated { field: "tag", wanted: 4, left: 1 }));
        assert_eq!(reader.rest(), b"\xff", "a failed read takes nothing");
        assert_eq!(reader.cstr("name"), Err(Truncated { field: "name", wanted: 1, left: 0 }));
    }
}
