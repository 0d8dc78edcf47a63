//! What a PC shows on its screen.

use anyhow::{Context, Result, ensure};

/// A picture, as QEMU writes it: portable pixmap (P6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    width: usize,
    height: usize,
    /// Red, green and blue of each pixel.
    pixels: Vec<u8>,
}

impl Picture {
    /// Reads a portable pixmap of 8 bits for each colour.
    ///
    /// # Errors
    /// It is something else, or cut off.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let mut words = bytes.splitn(4, |byte| byte.is_ascii_whitespace());
        let (kind, width, height, rest) = (words.next(), words.next(), words.next(), words.next());
        ensure!(kind == Some(b"P6"), "it is no portable pixmap");
        let number = |word: Option<&[u8]>| -> Result<usize> {
            std::str::from_utf8(word.context("it is cut off")?)?.parse().context("it has no size")
        };
        let (width, height) = (number(width)?, number(height)?);
        let pixels =
            rest.context("it is cut off")?.strip_prefix(b"255\n").context("its colours")?;
        let n_bytes = width.checked_mul(height).and_then(|n| n.checked_mul(3));
        ensure!(n_bytes == Some(pixels.len()), "it is cut off");
        Ok(Self { width, height, pixels: pixels.to_vec() })
    }

    /// Width and height in pixels.
    pub fn size(&self) -> (usize, usize) {
        (self.width, self.height)
    }

    /// How many of a hundred pixels in these rows are such.
    pub fn percent(&self, rows: std::ops::Range<usize>, is: impl Fn([u8; 3]) -> bool) -> usize {
        let rows = rows.start.min(self.height)..rows.end.min(self.height);
        let bytes = &self.pixels[rows.start * self.width * 3..rows.end * self.width * 3];
        let n = bytes.chunks_exact(3).filter(|pixel| is([pixel[0], pixel[1], pixel[2]])).count();
        n * 100 / (bytes.len() / 3).max(1)
    }

    /// How often light and dark change from one pixel to the next in a row, at most, among these rows: where something is
    /// written that is often.
    pub fn changes(&self, rows: std::ops::Range<usize>) -> usize {
        let rows = rows.start.min(self.height)..rows.end.min(self.height);
        let in_row = |row: usize| {
            let row = &self.pixels[row * self.width * 3..(row + 1) * self.width * 3];
            let light: Vec<i32> =
                row.chunks_exact(3).map(|it| it.iter().map(|c| i32::from(*c)).sum()).collect();
            light.windows(2).filter(|pair| (pair[0] - pair[1]).abs() > 150).count()
        };
        rows.map(in_row).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pixmap_is_read_and_no_prefix_of_it() {
        let mut bytes = b"P6\n2 2\n255\n".to_vec();
        bytes.extend([0, 0, 0, 255, 255, 255, 9, 9, 9, 8, 8, 8]);
        let picture = Picture::parse(&bytes).unwrap();
        assert_eq!((picture.size(), picture.changes(0..2), picture.changes(1..2)), ((2, 2), 1, 0));
        assert_eq!(picture.percent(0..1, |pixel| pixel == [0, 0, 0]), 50);
        for length in 0..bytes.len() {
            assert!(Picture::parse(&bytes[..length]).is_err(), "{length}");
        }
    }
}
