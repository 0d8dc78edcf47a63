//! Sizes as people read them.

use core::fmt;

/// Bytes, shown in the unit that fits: `1.4 GB`, `12 MB`, `0 bytes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut size = self.0 as f64;
        if size < 999.5 {
            return write!(f, "{} bytes", self.0);
        }
        let mut units = ["kB", "MB", "GB", "TB"].into_iter().peekable();
        while let Some(unit) = units.next() {
            size /= 1000.0;
            if size < 999.5 || units.peek().is_none() {
                let decimals = usize::from(size < 9.95);
                return write!(f, "{size:.decimals$} {unit}");
            }
        }
        Ok(())
    }
}

/// What `500M`, `20G` or `1T` means: bytes, in powers of 1024.
pub fn binary_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let shift = match unit {
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return None,
    };
    number.trim().parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::{Size, binary_size};
    use alloc::string::ToString as _;

    #[test]
    fn sizes_are_short() {
        let sizes = [0, 999, 1000, 12_345_678, 2_147_483_648, u64::MAX];
        let sizes = sizes.map(|bytes| Size(bytes).to_string());
        assert_eq!(sizes, ["0 bytes", "999 bytes", "1.0 kB", "12 MB", "2.1 GB", "18446744 TB"]);
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(binary_size("20G"), Some(20 << 30));
        assert_eq!((binary_size(" 500 M "), binary_size("1T")), (Some(500 << 20), Some(1 << 40)));
        for text in ["", "G", "20", "20g", "-1G", "1.5G", "99999999999T", "2€"] {
            assert_eq!(binary_size(text), None, "{text}");
        }
    }
}
