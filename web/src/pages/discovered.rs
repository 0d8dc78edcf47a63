//! PCs that ask and are no machines yet.

use super::{
    Choice, Done, Failure, Frame, INHERIT, Page, When, image_choices, machine_name, or_inherit,
    own_root_choices, render, see_other,
};
use crate::problem::status_of;
use crate::text;
use askama::Template;
use axum::Form;
use axum::extract::Path;
use axum::http::StatusCode;
use model::{
    Follows, ImageChoice, ImageName, InvalidName, MachineName, ParseChoiceError, RootKind, Site,
};
use service::{Admin, Discovered, Error, MachineChange, Viewer};
use std::collections::BTreeSet;
use wire::Mac;

/// An empty page waits for the first PC. One with forms is left alone.
const REFRESH_SECONDS: u32 = 3;

/// PCs on the page. More than that are a flood, and the newest are on top.
const SHOWN_MAX: usize = 100;

struct Pc {
    mac: String,
    firmware: String,
    address: String,
    uuid: String,
    /// The machine of which it is probably another network card.
    probable_machine: Option<String>,
    first: When,
    last: When,
    name: String,
    name_error: String,
    form_error: String,
    images: Vec<Choice>,
    roots: Vec<Choice>,
}

#[derive(Template)]
#[template(path = "discovered.html")]
struct DiscoveredPage {
    frame: Frame,
    pcs: Vec<Pc>,
    n_left_out: usize,
    has_images: bool,
}

/// What somebody typed into the form of one PC.
#[derive(serde::Deserialize)]
pub(crate) struct Adoption {
    #[serde(default)]
    name: String,
    #[serde(default)]
    image: String,
    #[serde(default)]
    root: String,
}

/// The form as it was sent, and what is wrong with it.
struct Refused {
    mac: Mac,
    form: Adoption,
    name_error: String,
    form_error: String,
}

pub(crate) async fn show(service: Viewer) -> Page {
    Ok(page(&service, StatusCode::OK, None))
}

pub(crate) async fn adopt(
    service: Admin,
    Path(mac): Path<String>,
    Form(form): Form<Adoption>,
) -> Page {
    let mac: Mac = mac.parse().map_err(|error: wire::ParseMacError| {
        Failure::with(&service, StatusCode::NOT_FOUND, error.to_string())
    })?;
    let (name, change) = match parse(&form) {
        Ok(parsed) => parsed,
        Err((name_error, form_error)) => {
            let refused = Refused { mac, form, name_error, form_error };
            return Ok(page(&service, StatusCode::UNPROCESSABLE_ENTITY, Some(&refused)));
        }
    };
    let change = MachineChange { mac: Some(mac), ..change };
    match service.add_machine(name.clone(), change).await {
        Ok(_) => Ok(see_other(&format!("/machines/{name}"), Done::Adopted)),
        Err(error) if error.is_wrong_input() => {
            let is_name = matches!(error, Error::NameTaken(_));
            let (text, empty) = (error.chain(), String::new());
            let (name_error, form_error) = if is_name { (text, empty) } else { (empty, text) };
            // Two people may adopt the same PC at once: then its form is gone.
            if !service.discovered().iter().any(|pc| pc.seen.mac == mac) {
                return Err(Failure::new(&service, &error));
            }
            let refused = Refused { mac, form, name_error, form_error };
            Ok(page(&service, StatusCode::UNPROCESSABLE_ENTITY, Some(&refused)))
        }
        Err(error) => Err(Failure::with(&service, status_of(&error), error.chain())),
    }
}

/// Whose further network card it is.
#[derive(serde::Deserialize)]
pub(crate) struct Owner {
    #[serde(default)]
    machine: String,
}

/// Gives the NIC to a machine.
pub(crate) async fn add(service: Admin, Path(mac): Path<String>, Form(form): Form<Owner>) -> Page {
    let mac: Mac = mac.parse().map_err(|error: wire::ParseMacError| {
        Failure::with(&service, StatusCode::NOT_FOUND, error.to_string())
    })?;
    let name = machine_name(&service, &form.machine)?;
    let change = MachineChange { add_macs: vec![mac], ..MachineChange::default() };
    let added = match service.site().machine(&name) {
        Some(_) => service.set_machine(name.clone(), change).await,
        None => Err(Error::NoMachine(name.clone())),
    };
    added.map_err(|error| Failure::new(&service, &error))?;
    Ok(see_other(&format!("/machines/{name}"), Done::CardAdded))
}

/// Errors of the name and of the rest of the form.
type FormErrors = (String, String);

fn parse(form: &Adoption) -> Result<(MachineName, MachineChange), FormErrors> {
    let name = form.name.trim().parse();
    let name = name.map_err(|error: InvalidName| (error.to_string(), String::new()))?;
    let rest = |error: String| (String::new(), error);
    let image = match form.image.as_str() {
        INHERIT => None,
        "" => Some(None),
        image => {
            let image = image.parse().map_err(|error: ParseChoiceError| rest(error.to_string()))?;
            Some(Some(image))
        }
    };
    let root = match form.root.as_str() {
        "" | INHERIT => None,
        root => {
            let root = root.parse();
            Some(root.map_err(|error: ParseChoiceError| rest(error.to_string()))?)
        }
    };
    Ok((name, MachineChange { image, root, ..MachineChange::default() }))
}

fn page(
    service: &Viewer,
    status: StatusCode,
    refused: Option<&Refused>,
) -> axum::response::Response {
    let site = service.site();
    let names: Vec<&str> = site.machines.iter().map(|machine| machine.name.as_str()).collect();
    let mut suggestions = suggestions(&names);
    let image = match site.settings.image {
        Some(_) => INHERIT,
        None => usual_image(&site),
    };
    let root = if site.settings.root.is_some() { INHERIT } else { RootKind::default().word() };
    let discovered = service.discovered();
    let pcs: Vec<Pc> = discovered
        .iter()
        .take(SHOWN_MAX)
        .map(|found| {
            let seen = &found.seen;
            let suggestion = suggestions.next().unwrap_or_default();
            match refused.filter(|refused| refused.mac == seen.mac) {
                Some(Refused { form, name_error, form_error, .. }) => Pc {
                    name_error: name_error.clone(),
                    form_error: form_error.clone(),
                    ..pc(service, found, form.name.clone(), &form.image, &form.root)
                },
                None => pc(service, found, suggestion, image, root),
            }
        })
        .collect();
    let frame = Frame::new(service, "discovered", "Discovered");
    let page = DiscoveredPage {
        frame: if pcs.is_empty() { frame.refreshed(REFRESH_SECONDS) } else { frame },
        n_left_out: discovered.len() - pcs.len(),
        pcs,
        has_images: !site.images.is_empty(),
    };
    render(status, &page)
}

fn pc(service: &Viewer, found: &Discovered, name: String, image: &str, root: &str) -> Pc {
    let seen = &found.seen;
    Pc {
        probable_machine: found.probable_machine.as_ref().map(MachineName::to_string),
        mac: seen.mac.to_string(),
        firmware: text::firmware(Some(seen.firmware)),
        address: seen.address.map_or_else(|| "none".to_owned(), |address| address.to_string()),
        uuid: seen.uuid.clone().unwrap_or_else(|| "not sent".to_owned()),
        first: When::seconds(seen.first_unix, service.now()),
        last: When::seconds(seen.last_unix, service.now()),
        name,
        name_error: String::new(),
        form_error: String::new(),
        images: match inherited_image(&service.site()) {
            Some(inherited) => or_inherit(inherited, image, image_choices(service, image)),
            None => image_choices(service, image),
        },
        roots: match service.site().settings.root {
            Some(kind) => {
                let inherited = format!("from the site: {}", kind.title());
                or_inherit(inherited, root, own_root_choices(root))
            }
            None => own_root_choices(root),
        },
    }
}

/// The image that the site gives to machines which have none of their own, if it says something of that.
fn inherited_image(site: &Site) -> Option<String> {
    let image = site.settings.image.as_ref()?.as_ref();
    let image = image.map_or_else(|| "none".to_owned(), ToString::to_string);
    Some(format!("from the site: {image}"))
}

/// The image that most machines have; with one image there is nothing to choose.
fn usual_image(site: &Site) -> &str {
    let users = |image: &ImageName| {
        let has_it = |it: &&ImageChoice| it.image == *image && it.follows == Follows::Released;
        site.machines.iter().filter_map(|machine| machine.image.as_ref()).filter(has_it).count()
    };
    let names: BTreeSet<&ImageName> = site.images.iter().map(|version| &version.image).collect();
    match names.len() {
        1 => names.first().map_or("", |only| only.as_str()),
        _ => {
            let used = names.into_iter().filter(|image| users(image) > 0);
            used.max_by_key(|image| users(image)).map_or("", ImageName::as_str)
        }
    }
}

/// Free names that go on where the last number ends: after `lab-07` comes `lab-08`.
fn suggestions(names: &[&str]) -> impl Iterator<Item = String> {
    let numbered = names.iter().filter_map(|name| {
        let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let digits = &name[stem.len()..];
        Some((digits.parse::<u32>().ok()?, stem, digits.len()))
    });
    let (last, stem, width) = numbered.max().unwrap_or((0, "pc-", 2));
    let stem = stem.to_owned();
    (1..).map_while(move |n| Some(format!("{stem}{:0width$}", last.checked_add(n)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggested_names_go_on_counting() {
        let first = |names: &[&str]| suggestions(names).take(2).collect::<Vec<_>>();
        assert_eq!(first(&[]), ["pc-01", "pc-02"]);
        assert_eq!(first(&["lab-07", "server", "lab-03"]), ["lab-08", "lab-09"]);
        assert_eq!(first(&["pc-99"]), ["pc-100", "pc-101"]);
        assert!(first(&["x4294967295"]).is_empty());
    }
}
