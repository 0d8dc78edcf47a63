//! The bill of materials, in the format that scanners for vulnerabilities read: CycloneDX 1.5 as JSON.

use super::crates::{Crate, Crates};
use crate::build::version;
use anyhow::Result;
use serde_json::{Value, json};

pub(crate) fn text(crates: &Crates) -> Result<String> {
    let us = format!("pkg:cargo/bootlace@{}", version());
    let name = |place: &usize| url(&crates.all[*place]);
    let uses = |places: &[usize]| places.iter().map(name).collect::<Vec<_>>();
    let mut dependencies = vec![json!({ "ref": us, "dependsOn": uses(&crates.used_by_us) })];
    for it in &crates.all {
        dependencies.push(json!({ "ref": url(it), "dependsOn": uses(&it.uses) }));
    }
    // No serial number and no time: the same source has the same bill.
    let bill = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": {
            "type": "application", "bom-ref": us, "name": "bootlace", "version": version(), "purl": us,
            "licenses": [{ "expression": "MIT OR Apache-2.0" }],
        } },
        "components": crates.all.iter().map(component).collect::<Vec<_>>(),
        "dependencies": dependencies,
    });
    Ok(serde_json::to_string_pretty(&bill)? + "\n")
}

fn url(it: &Crate) -> String {
    format!("pkg:cargo/{}@{}", it.name, it.version)
}

fn component(it: &Crate) -> Value {
    let hashes: Vec<Value> =
        it.checksum.iter().map(|sum| json!({ "alg": "SHA-256", "content": sum })).collect();
    json!({
        "type": "library", "bom-ref": url(it), "name": it.name, "version": it.version, "purl": url(it),
        "licenses": [{ "expression": it.license }], "hashes": hashes,
    })
}
