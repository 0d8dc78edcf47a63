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

#[cfg(test)]
mod tests {
    use super::Size;
    use alloc::string::ToString as _;

    #[test]
    fn sizes_are_short() {
        let sizes = [0, 999, 1000, 12_345_678, 2_147_483_648, u64::MAX];
        let sizes = sizes.map(|bytes| Size(bytes).to_string());
        assert_eq!(sizes, ["0 bytes", "999 bytes", "1.0 kB", "12 MB", "2.1 GB", "18446744 TB"]);
    }
}
