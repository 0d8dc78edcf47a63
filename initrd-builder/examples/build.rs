//! Builds an initrd: `build INIT MODULES OUTPUT`, where MODULES is a folder or a kernel package.
#![allow(clippy::unwrap_used, reason = "a tool for developers")]

use initrd_builder::{Directory, KernelPackage, ModuleSource, build};
use std::path::Path;
use std::time::Instant;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [init, modules, output] = arguments.as_slice() else {
        panic!("usage: build INIT MODULES OUTPUT");
    };
    let start = Instant::now();
    let modules = Path::new(modules);
    let source: Box<dyn ModuleSource> = if modules.is_dir() {
        Box::new(Directory::open(modules).unwrap())
    } else {
        Box::new(KernelPackage::open(modules).unwrap())
    };
    println!("{} opened in {:?}", source.origin(), start.elapsed());
    let initrd = build(source.as_ref(), &std::fs::read(init).unwrap()).unwrap();
    std::fs::write(output, &initrd.bytes).unwrap();
    println!(
        "{} modules, {} bytes, {:?} of {:?}",
        initrd.modules.len(),
        initrd.bytes.len(),
        initrd.took,
        start.elapsed()
    );
    for warning in initrd.warnings {
        println!("warning: {warning}");
    }
}
