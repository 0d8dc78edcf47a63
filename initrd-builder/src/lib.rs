//! initrd-builder
