//! aoe
