//! What the worker says: pieces of the archive, lines, steps, and how it ended, each with its kind and length before it.

use serde::{Deserialize, Serialize};
use std::io::{self, ErrorKind, Read, Write};

/// No frame is longer.
const FRAME_BYTES_MAX: usize = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// The next bytes of the archive.
    Archive(Vec<u8>),
    Line(String),
    Step {
        step: String,
        done: u64,
        total: u64,
    },
    Failed(String),
    Done,
}

#[derive(Serialize, Deserialize)]
struct Step {
    step: String,
    done: u64,
    total: u64,
}

pub(super) fn write_frame(to: &mut impl Write, frame: &Frame) -> io::Result<()> {
    let step;
    let (kind, bytes): (u8, &[u8]) = match frame {
        Frame::Archive(bytes) => (b'A', bytes),
        Frame::Line(line) => (b'L', line.as_bytes()),
        Frame::Step { step: name, done, total } => {
            let named = Step { step: name.clone(), done: *done, total: *total };
            step = serde_json::to_vec(&named).map_err(io::Error::other)?;
            (b'S', &step)
        }
        Frame::Failed(why) => (b'F', why.as_bytes()),
        Frame::Done => (b'D', &[]),
    };
    let bytes = &bytes[..bytes.len().min(FRAME_BYTES_MAX)];
    let mut head = [kind, 0, 0, 0, 0];
    head[1..].copy_from_slice(&(bytes.len() as u32).to_be_bytes());
    to.write_all(&head)?;
    to.write_all(bytes)?;
    to.flush()
}

/// The next frame; `None`: there are no more.
pub(super) fn read_frame(from: &mut impl Read) -> io::Result<Option<Frame>> {
    let mut head = [0; 5];
    match from.read_exact(&mut head[..1]) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    from.read_exact(&mut head[1..])?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    let unknown =
        || io::Error::new(ErrorKind::InvalidData, "what builds it says what is not known");
    if length > FRAME_BYTES_MAX {
        return Err(unknown());
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Some(match head[0] {
        b'A' => Frame::Archive(bytes),
        b'L' => Frame::Line(text(bytes)),
        b'S' => {
            let Step { step, done, total } =
                serde_json::from_slice(&bytes).map_err(|_| unknown())?;
            Frame::Step { step, done, total }
        }
        b'F' => Frame::Failed(text(bytes)),
        b'D' => Frame::Done,
        _ => return Err(unknown()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_as_they_went_and_no_prefix_is_one() {
        let frames = [
            Frame::Archive(vec![1, 2, 3]),
            Frame::Line("I: installing".to_owned()),
            Frame::Step { step: "installing".to_owned(), done: 3, total: 9 },
            Frame::Failed("no network".to_owned()),
            Frame::Done,
        ];
        let mut bytes = Vec::new();
        for frame in &frames {
            write_frame(&mut bytes, frame).unwrap();
        }
        let mut rest = &bytes[..];
        for frame in &frames {
            assert_eq!(read_frame(&mut rest).unwrap().as_ref(), Some(frame));
        }
        assert_eq!(read_frame(&mut rest).unwrap(), None);
        for length in 0..bytes.len() {
            let mut prefix = &bytes[..length];
            while let Ok(Some(_)) = read_frame(&mut prefix) {}
        }
        assert!(read_frame(&mut &[b'A', 255, 255, 255, 255][..]).is_err());
        assert!(read_frame(&mut &[b'?', 0, 0, 0, 0][..]).is_err());
    }
}
