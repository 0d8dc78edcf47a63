//! How large packets may be.

use core::ops::RangeInclusive;

/// Sizes of packets that can be asked for: what IPv6 needs, and what jumbo frames mostly are.
pub const MTU_RANGE: RangeInclusive<u16> = 1280..=9000;
