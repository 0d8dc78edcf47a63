//! Loads kernel modules by the index that the builder wrote.

use crate::failure::Failure;
use initcfg::{INDEX_PATH, MODULES_PATH, Module, ModuleIndex, module_name};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;

/// Largest module when decoded; Debian's largest has 10 MB.
const MODULE_SIZE_MAX: u64 = 256 << 20;

/// Parameters that drivers get unless the command line says something else.
///
/// `virtio_net` without interrupts for what it has sent: with them, a packet that arrives while the kernel
/// shuts its devices down makes `virtnet_poll` spin for good, and a virtual machine never switches off (mainline's
/// commit 0d0eff39ceb3 of August 2026 mends it).
const DEFAULTS: &[(&str, &str)] = &[("virtio_net", "napi_tx=0")];

/// The modules of this initrd; loads them, each once.
pub(crate) struct Modules {
    index: ModuleIndex,
    /// The kernel's command line: `MODULE.PARAMETER=VALUE` and black lists.
    command_line: String,
    blocked: BTreeSet<String>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Tried, and why in vain: a driver that found no hardware is not tried again for each alias.
    tried: BTreeMap<String, Option<String>>,
    /// Names in the order of loading.
    loaded: Vec<String>,
}

impl Modules {
    /// Reads the index of this initrd.
    pub(crate) fn open() -> io::Result<Self> {
        let text = fs::read_to_string(INDEX_PATH)?;
        let index = ModuleIndex::parse(&text)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        let command_line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
        Ok(Self::new(index, command_line))
    }

    fn new(index: ModuleIndex, command_line: String) -> Self {
        let blocked = blocked_modules(&command_line);
        Self { index, command_line, blocked, state: Mutex::default() }
    }

    /// Release of the kernel that the modules are for.
    pub(crate) fn kernel(&self) -> &str {
        &self.index.kernel
    }

    /// Names of all modules that were loaded so far, in order.
    pub(crate) fn loaded(&self) -> Vec<String> {
        self.state.lock().map(|state| state.loaded.clone()).unwrap_or_default()
    }

    /// `true` if some module of this initrd is for this hardware name.
    pub(crate) fn knows(&self, alias: &str) -> bool {
        self.index.matching(alias).next().is_some()
    }

    /// Loads all modules for a hardware name (or another alias). Failures are normal: the processor may
    /// lack a feature, or two drivers may be for the same card.
    pub(crate) fn load_matching(&self, alias: &str) {
        for module in self.index.matching(alias) {
            if !self.blocked.contains(&module.name) {
                let _ = self.load(&module.name, "");
            }
        }
    }

    /// Loads a module and what it needs. A module that is not in the index is taken to be part of the
    /// kernel: whoever uses it will notice.
    ///
    /// # Errors
    /// The file can't be read or the kernel does not take it.
    pub(crate) fn load(&self, name: &str, parameters: &str) -> io::Result<()> {
        let Ok(mut state) = self.state.lock() else { return Ok(()) };
        let name = module_name(name);
        for step in self.index.load_order(&name) {
            let module = step.module;
            if !state.tried.contains_key(&module.name) {
                let own = if module.name == name { parameters } else { "" };
                let result = self.load_one(module, own);
                if matches!(result, Ok(true)) {
                    state.loaded.push(module.name.clone());
                }
                let trouble = result.err().map(|error| format!("{}: {error}", module.name));
                state.tried.insert(module.name.clone(), trouble);
            }
            if let Some(Some(trouble)) = state.tried.get(&module.name)
                && step.is_required
            {
                return Err(io::Error::other(trouble.clone()));
            }
        }
        Ok(())
    }

    /// `false` if it was loaded already.
    fn load_one(&self, module: &Module, parameters: &str) -> io::Result<bool> {
        let path = Path::new(MODULES_PATH).join(&module.file);
        let image = decode(&path)?;
        let parameters = CString::new(self.parameters_of(&module.name, parameters))?;
        match rustix::system::init_module(&image, &parameters) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Parameters for a module, of which the kernel takes the last that it finds: the `given` ones after what
    /// the command line says (`e1000e.EEE=0` is `EEE=0` for `e1000e`), and that after the default.
    fn parameters_of(&self, name: &str, given: &str) -> String {
        let defaults = DEFAULTS.iter().filter(|(module, _)| *module == name).map(|(_, own)| *own);
        let words = self.command_line.split_ascii_whitespace().filter_map(|word| {
            let (module, parameter) = word.split_once('.')?;
            let is_parameter = module_name(module) == name && parameter.contains('=');
            is_parameter.then_some(parameter)
        });
        let given = given.split_ascii_whitespace();
        defaults.chain(words).chain(given).collect::<Vec<_>>().join(" ")
    }
}

/// Modules that the command line forbids for hardware, in the words of kmod and of dracut.
fn blocked_modules(command_line: &str) -> BTreeSet<String> {
    command_line
        .split_ascii_whitespace()
        .filter_map(|word| word.split_once('='))
        .filter(|(key, _)| matches!(*key, "modprobe.blacklist" | "rd.driver.blacklist"))
        .flat_map(|(_, names)| names.split(','))
        .map(module_name)
        .collect()
}

fn decode(path: &Path) -> io::Result<Vec<u8>> {
    let file = BufReader::new(File::open(path)?);
    let mut image = Vec::new();
    let invalid = |error: String| io::Error::new(io::ErrorKind::InvalidData, error);
    let decoder = ruzstd::decoding::StreamingDecoder::new(file)
        .map_err(|error| invalid(format!("{}: {error}", path.display())))?;
    decoder.take(MODULE_SIZE_MAX).read_to_end(&mut image)?;
    Ok(image)
}

/// Why a boot ends that needs this driver.
pub(crate) fn cannot_load(driver: &str, error: &io::Error, modules: &Modules) -> Failure {
    Failure::new(
        format!("can't load the {driver} driver: {error}"),
        format!("the initrd is for kernel {}: use it with that kernel", modules.kernel()),
    )
}

/// `modprobe -q -- NAME`, as the kernel calls it.
pub(crate) fn modprobe(arguments: &[String]) -> ExitCode {
    let Ok(modules) = Modules::open() else { return ExitCode::FAILURE };
    for name in arguments.iter().filter(|argument| !argument.starts_with('-')) {
        if modules.load(name, "").is_err() {
            return ExitCode::FAILURE;
        }
        modules.load_matching(name);
    }
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_sets_and_blocks_modules() {
        let line = "quiet e1000e.EEE=0 snd-hda.x=1 e1000e.debug=1 modprobe.blacklist=foo,bar-baz\n";
        let modules = Modules::new(ModuleIndex::default(), line.to_owned());
        assert_eq!(modules.parameters_of("e1000e", ""), "EEE=0 debug=1");
        assert_eq!(modules.parameters_of("snd_hda", "y=2"), "x=1 y=2");
        assert_eq!(modules.parameters_of("nbd", ""), "");
        let modules_with = |line: &str| Modules::new(ModuleIndex::default(), line.to_owned());
        assert_eq!(modules_with("").parameters_of("virtio_net", ""), "napi_tx=0");
        let own = modules_with("virtio_net.napi_tx=1").parameters_of("virtio_net", "");
        assert_eq!(own, "napi_tx=0 napi_tx=1", "the command line has the last word");
        assert_eq!(modules.blocked, ["bar_baz", "foo"].map(str::to_owned).into());
    }
}
