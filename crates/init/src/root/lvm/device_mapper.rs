//! The kernel's device mapper (`include/uapi/linux/dm-ioctl.h`): block devices that consist of parts of others.

use rustix::io::Errno;
use rustix::ioctl::{Direction, Ioctl, IoctlOutput, Opcode, ioctl, opcode};
use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

const CONTROL: &str = "/dev/mapper/control";

/// How long the kernel may take to make a node, after it said that a device is there.
const NODE_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of `struct dm_ioctl`, with which each request and each answer begins.
const HEADER_BYTES: usize = 312;
/// Bytes of `struct dm_target_spec`.
const TARGET_BYTES: usize = 40;
const NAME_AT: usize = 48;
const NAME_BYTES: usize = 128;
const UUID_AT: usize = NAME_AT + NAME_BYTES;
const UUID_BYTES: usize = 129;
const DEVICE_AT: usize = 40;
const FLAGS_AT: usize = 28;

/// Of the interface; the kernel takes all that are not newer than its own.
const VERSION: [u32; 3] = [4, 0, 0];

const READ_ONLY: u32 = 1;

const CREATE: u8 = 3;
const REMOVE: u8 = 4;
const SUSPEND: u8 = 6;
const LOAD: u8 = 9;

/// A part of a device.
pub(super) struct Target {
    pub(super) sectors: u64,
    pub(super) kind: &'static str,
    pub(super) parameters: String,
}

/// Whom to ask.
pub(super) struct Control {
    file: File,
}

impl Control {
    /// Its module must be loaded.
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self { file: File::options().read(true).write(true).open(CONTROL)? })
    }

    /// Makes a device of these parts; returns its numbers.
    pub(super) fn make(
        &self,
        name: &str,
        uuid: &str,
        targets: &[Target],
        is_read_only: bool,
    ) -> io::Result<(u64, u64)> {
        let named = Request::new(name)?;
        let mut create = Request::new(name)?;
        create.text(UUID_AT, UUID_BYTES, uuid)?;
        let device = self.ask(CREATE, create)?.u64(DEVICE_AT);
        let minor = (device & 0xff) | ((device >> 12) & 0xfff00);
        let numbers = ((device & 0xfff00) >> 8, minor);
        let mut load = Request::new(name)?;
        if is_read_only {
            load.put(FLAGS_AT, &READ_ONLY.to_ne_bytes());
        }
        load.targets(targets)?;
        let made = self
            .ask(LOAD, load)
            // With no flag this is "resume": the loaded table becomes the one in use.
            .and_then(|_| self.ask(SUSPEND, named))
            .and_then(|_| await_node(minor));
        if let Err(error) = made {
            let _ = self.remove(name);
            return Err(error);
        }
        Ok(numbers)
    }

    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        self.ask(REMOVE, Request::new(name)?).map(drop)
    }

    fn ask(&self, command: u8, mut request: Request) -> io::Result<Request> {
        let length = u32::try_from(request.bytes.len()).map_err(io::Error::other)?;
        request.put(12, &length.to_ne_bytes());
        let call = Call { opcode: opcode_of(command), request };
        // SAFETY: the buffer is as long as its header says, and the kernel writes no more than that; `Call` owns it until the
        // call has returned.
        #[expect(unsafe_code, reason = "no library can name these calls")]
        let answer = unsafe { ioctl(&self.file, call) };
        Ok(answer?)
    }
}

fn await_node(minor: u64) -> io::Result<()> {
    let node = format!("/dev/dm-{minor}");
    let started = Instant::now();
    while !Path::new(&node).exists() {
        if started.elapsed() > NODE_TIMEOUT {
            return Err(io::Error::other(format!("{node} does not appear")));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// `_IOWR(0xfd, command, struct dm_ioctl)`.
const fn opcode_of(command: u8) -> Opcode {
    opcode::from_components(Direction::ReadWrite, 0xfd, command, HEADER_BYTES)
}

/// A header, and what stands behind it; the kernel writes its answer over it.
struct Request {
    bytes: Vec<u8>,
}

impl Request {
    fn new(name: &str) -> io::Result<Self> {
        let mut request = Self { bytes: vec![0; HEADER_BYTES] };
        for (index, number) in VERSION.iter().enumerate() {
            request.put(index * 4, &number.to_ne_bytes());
        }
        // Where targets begin.
        request.put(16, &(HEADER_BYTES as u32).to_ne_bytes());
        request.text(NAME_AT, NAME_BYTES, name)?;
        Ok(request)
    }

    fn put(&mut self, at: usize, field: &[u8]) {
        if let Some(place) = self.bytes.get_mut(at..at + field.len()) {
            place.copy_from_slice(field);
        }
    }

    /// A text, of which the field must hold the NUL too.
    fn text(&mut self, at: usize, field_bytes: usize, text: &str) -> io::Result<()> {
        if text.len() >= field_bytes {
            return Err(io::Error::other(format!("{text} is too long for a device's name")));
        }
        self.put(at, text.as_bytes());
        Ok(())
    }

    fn targets(&mut self, targets: &[Target]) -> io::Result<()> {
        let count = u32::try_from(targets.len()).map_err(io::Error::other)?;
        self.put(20, &count.to_ne_bytes());
        let mut start = 0;
        for target in targets {
            let length = (TARGET_BYTES + target.parameters.len() + 1).next_multiple_of(8);
            let mut spec = vec![0; length];
            let fields: [(usize, &[u8]); 5] = [
                (0, &u64::to_ne_bytes(start)),
                (8, &target.sectors.to_ne_bytes()),
                (20, &(length as u32).to_ne_bytes()),
                (24, target.kind.as_bytes()),
                (TARGET_BYTES, target.parameters.as_bytes()),
            ];
            for (at, field) in fields {
                spec[at..at + field.len()].copy_from_slice(field);
            }
            self.bytes.extend(spec);
            start += target.sectors;
        }
        Ok(())
    }

    fn u64(&self, at: usize) -> u64 {
        let field = self.bytes.get(at..at + 8).and_then(|field| field.try_into().ok());
        field.map_or(0, u64::from_ne_bytes)
    }
}

struct Call {
    opcode: Opcode,
    request: Request,
}

// SAFETY: the number says that the kernel reads and writes a `struct dm_ioctl`, which the pointer leads to; how much lies behind it
// stands in its `data_size`, which `ask` sets.
#[expect(unsafe_code, reason = "no library can name these calls")]
unsafe impl Ioctl for Call {
    type Output = Request;

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.opcode
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.request.bytes.as_mut_ptr().cast()
    }

    unsafe fn output_from_ptr(_: IoctlOutput, pointer: *mut c_void) -> Result<Self::Output, Errno> {
        // SAFETY: it is what `as_ptr` gave, and the header at least is as long as this.
        let bytes = unsafe { std::slice::from_raw_parts(pointer.cast::<u8>(), HEADER_BYTES) };
        Ok(Request { bytes: bytes.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_as_the_kernel_wants_it() {
        // DM_DEV_CREATE and DM_TABLE_LOAD of the header.
        assert_eq!(opcode_of(CREATE) as u32, 0xc138_fd03);
        assert_eq!(opcode_of(LOAD) as u32, 0xc138_fd09);
        let target = |sectors, parameters: &str| Target {
            sectors,
            kind: "linear",
            parameters: parameters.to_owned(),
        };
        let mut request = Request::new("vg-root").unwrap();
        request.targets(&[target(2048, "43:3 2048"), target(8, "43:3 9")]).unwrap();
        let bytes = &request.bytes;
        assert_eq!(bytes[..4], 4u32.to_ne_bytes());
        assert_eq!(bytes[20..24], 2u32.to_ne_bytes());
        assert_eq!(&bytes[NAME_AT..NAME_AT + 8], b"vg-root\0");
        let second = HEADER_BYTES + 56;
        assert_eq!(bytes[HEADER_BYTES + 20..HEADER_BYTES + 24], 56u32.to_ne_bytes());
        assert_eq!(&bytes[HEADER_BYTES + 24..HEADER_BYTES + 31], b"linear\0");
        assert_eq!(&bytes[HEADER_BYTES + 40..HEADER_BYTES + 50], b"43:3 2048\0");
        assert_eq!(
            bytes[second..second + 16],
            [2048u64.to_ne_bytes(), 8u64.to_ne_bytes()].concat()
        );
        assert_eq!(bytes.len(), second + 48);
        assert!(Request::new(&"x".repeat(128)).is_err());
    }
}
