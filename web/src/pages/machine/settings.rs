//! The form with a machine's settings.

use super::show::page;
use crate::pages::{
    Choice, Done, Failure, INHERIT, Page, image_choices, machine_name, or_inherit, origin,
    root_choices, see_other, write_mode_choices,
};
use axum::Form;
use axum::extract::Path;
use model::{
    BadMenu, BadRootUrl, ImageChoice, Machine, Origin, ParseChoiceError, RootKind, Setting,
};
use service::{Admin, Error, MachineChange, Viewer};
use wire::Mac;

/// The settings as somebody typed them. A field that a script leaves out stays as it is.
#[derive(Clone, Debug, Default, serde::Deserialize)]
pub(super) struct Settings {
    macs: Option<String>,
    image: Option<String>,
    root: Option<String>,
    root_url: Option<String>,
    write_mode: Option<String>,
    menu: Option<String>,
    kernel_args: Option<String>,
}

/// What is wrong with each of the settings; an empty text is no error.
#[derive(Clone, Debug, Default)]
pub(super) struct SettingsErrors {
    pub(super) macs: String,
    pub(super) image: String,
    pub(super) root: String,
    pub(super) root_url: String,
    pub(super) write_mode: String,
    pub(super) menu: String,
    pub(super) kernel_args: String,
}

impl SettingsErrors {
    pub(super) fn is_empty(&self) -> bool {
        let Self { macs, image, root, root_url, write_mode, menu, kernel_args } = self;
        let all = [macs, image, root, root_url, write_mode, menu, kernel_args];
        all.into_iter().all(String::is_empty)
    }
}

/// The form as it is drawn.
pub(super) struct SettingsForm {
    /// One a line.
    pub(super) macs: String,
    pub(super) n_macs: usize,
    pub(super) images: Vec<Choice>,
    pub(super) roots: Vec<Choice>,
    pub(super) root_url: String,
    pub(super) write_modes: Vec<Choice>,
    /// Empty: it is inherited.
    pub(super) menu: String,
    /// What it is then.
    pub(super) inherited_menu: String,
    pub(super) kernel_args: String,
    pub(super) errors: SettingsErrors,
}

impl SettingsForm {
    /// Shows what somebody typed, and the machine's own settings in all other fields.
    pub(super) fn new(
        service: &Viewer,
        machine: &Machine,
        typed: Settings,
        errors: SettingsErrors,
    ) -> Self {
        fn text(setting: Option<&impl ToString>) -> String {
            setting.map_or_else(String::new, ToString::to_string)
        }
        let inherited = inherited(service, machine);
        let label = |setting, value: &str| {
            format!("{}: {value}", origin(&inherited, inherited.set_by.of(setting)))
        };
        let own = |setting, value: String| match machine.set_by.of(setting) {
            Origin::Machine => value,
            _ => INHERIT.to_owned(),
        };
        let image =
            typed.image.unwrap_or_else(|| own(Setting::Image, text(machine.image.as_ref())));
        let root = typed.root.unwrap_or_else(|| own(Setting::Root, machine.root.to_string()));
        let write_mode = typed
            .write_mode
            .unwrap_or_else(|| own(Setting::WriteMode, machine.write_mode.to_string()));
        let inherited_image = text(inherited.image.as_ref());
        let inherited_image = if inherited_image.is_empty() { "none" } else { &inherited_image };
        let (inherited_root, inherited_mode) =
            (inherited.root.title(), inherited.write_mode.title());
        let macs = typed.macs.unwrap_or_else(|| {
            machine.macs().map(|mac| mac.to_string()).collect::<Vec<_>>().join("\n")
        });
        Self {
            n_macs: macs.lines().count(),
            macs,
            images: or_inherit(
                label(Setting::Image, inherited_image),
                &image,
                image_choices(service, &image),
            ),
            roots: or_inherit(label(Setting::Root, inherited_root), &root, root_choices(&root)),
            root_url: typed
                .root_url
                .unwrap_or_else(|| text(machine.root_url.as_ref().filter(|_| root != INHERIT))),
            write_modes: or_inherit(
                label(Setting::WriteMode, inherited_mode),
                &write_mode,
                write_mode_choices(&write_mode),
            ),
            menu: typed.menu.unwrap_or_else(|| match machine.set_by.menu {
                Origin::Machine => machine.menu.to_string(),
                _ => String::new(),
            }),
            inherited_menu: label(Setting::Menu, &inherited.menu.in_words()),
            kernel_args: typed.kernel_args.unwrap_or_else(|| machine.kernel_args.to_string()),
            errors,
        }
    }
}

/// The machine as it would be without settings of its own.
fn inherited(service: &Viewer, machine: &Machine) -> Machine {
    let site = service.site();
    let mut machine = machine.clone();
    Setting::ALL.into_iter().for_each(|setting| machine.set_by.give_up(setting));
    let room = site.room_of(&machine).map(|room| &room.settings);
    machine.inherit(room, &site.settings);
    machine
}

pub(super) async fn save(
    service: Admin,
    Path(name): Path<String>,
    Form(settings): Form<Settings>,
) -> Page {
    let name = machine_name(&service, &name)?;
    service.machine(&name).await.map_err(|error| Failure::new(&service, &error))?;
    let mut errors = SettingsErrors::default();
    let change = parse(&settings, &mut errors);
    if errors.is_empty() {
        match service.set_machine(name.clone(), change).await {
            Ok(_) => return Ok(see_other(&format!("/machines/{name}"), Done::Saved)),
            Err(error @ (Error::MacTaken { .. } | Error::GroupMac(_) | Error::TooManyMacs(_))) => {
                errors.macs = error.chain();
            }
            Err(error @ (Error::NoRootUrl { .. } | Error::RootUrlOfOtherKind { .. })) => {
                errors.root_url = error.chain();
            }
            Err(error @ Error::NoMenuPassword(_)) => errors.menu = error.chain(),
            Err(error @ Error::NoImage { .. })
                if settings.menu.as_deref().is_some_and(|menu| menu.contains("image:")) =>
            {
                errors.menu = error.chain();
            }
            // Of what the form holds, only the image can be refused then.
            Err(error) if error.is_wrong_input() => errors.image = error.chain(),
            Err(error) => return Err(Failure::new(&service, &error)),
        }
    }
    page(&service, &name, None, Some((settings, errors))).await
}

fn parse(settings: &Settings, errors: &mut SettingsErrors) -> MachineChange {
    fn choice<T: std::str::FromStr<Err = ParseChoiceError>>(
        text: Option<&String>,
        error: &mut String,
    ) -> Option<T> {
        text?.parse().map_err(|wrong: ParseChoiceError| *error = wrong.to_string()).ok()
    }
    let macs = settings.macs.as_deref().map(|text| macs(text, &mut errors.macs));
    let (mac, other_macs) = match macs.as_deref() {
        Some([first, others @ ..]) => (Some(*first), Some(others.to_vec())),
        _ => (None, None),
    };
    let mut inherit = Vec::new();
    let mut chosen = |setting, text: &Option<String>| match text.as_deref() {
        Some(INHERIT) => {
            inherit.push(setting);
            None
        }
        _ => text.clone(),
    };
    let image = chosen(Setting::Image, &settings.image);
    let write_mode = chosen(Setting::WriteMode, &settings.write_mode);
    let inherits_root = settings.root.as_deref() == Some(INHERIT);
    let root = chosen(Setting::Root, &settings.root);
    let menu = settings.menu.as_deref().map(str::trim).and_then(|menu| match menu {
        "" => {
            inherit.push(Setting::Menu);
            None
        }
        menu => menu.parse().map_err(|wrong: BadMenu| errors.menu = wrong.to_string()).ok(),
    });
    let image = image.as_deref().map(|image| match image {
        "" => None,
        image => {
            image.parse::<ImageChoice>().map_err(|wrong| errors.image = wrong.to_string()).ok()
        }
    });
    let root: Option<RootKind> = choice(root.as_ref(), &mut errors.root);
    // The field keeps its text when somebody chooses another kind of root.
    let url = settings.root_url.as_deref().map(str::trim).filter(|url| !url.is_empty());
    let url = url.filter(|_| !inherits_root && root.is_none_or(RootKind::is_foreign));
    let root_url = url.and_then(|url| {
        url.parse().map_err(|wrong: BadRootUrl| errors.root_url = wrong.to_string()).ok()
    });
    MachineChange {
        mac,
        other_macs,
        image,
        root,
        root_url,
        write_mode: choice(write_mode.as_ref(), &mut errors.write_mode),
        menu,
        inherit,
        kernel_args: choice(settings.kernel_args.as_ref(), &mut errors.kernel_args),
        ..MachineChange::default()
    }
}

/// The MACs that somebody typed, each on a line, or with blanks or commas between them.
fn macs(text: &str, error: &mut String) -> Vec<Mac> {
    let words = text.split([',', ' ', '\n', '\r', '\t']).filter(|word| !word.is_empty());
    let parsed: Result<Vec<Mac>, String> =
        words.map(|word| word.parse().map_err(|wrong| format!("{word} is {wrong}"))).collect();
    match parsed {
        Ok(macs) if macs.is_empty() => {
            *error = "a machine needs the MAC of a NIC that it boots from: to have none, remove it"
                .to_owned();
            macs
        }
        Ok(macs) => macs,
        Err(wrong) => {
            *error = wrong;
            Vec::new()
        }
    }
}
