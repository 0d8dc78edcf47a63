//! Images that are built of packages.

use super::{Done, Failure, Frame, Page, render, see_other};
use askama::Template;
use axum::Form;
use axum::extract::Query;
use axum::http::StatusCode;
use axum::response::Response;
use model::{ImageName, InvalidName, VersionState};
use service::{Admin, NewBuild, Recipe};
use std::collections::BTreeMap;

/// Fields with this before their name are parameters.
const SET: &str = "set-";

/// A recipe that comes along.
struct Listed {
    name: &'static str,
    title: String,
    is_chosen: bool,
}

/// What may be chosen in a recipe.
struct Choice {
    name: String,
    label: String,
    /// What is to be known beside; may be empty.
    help: String,
    value: String,
    choices: Vec<String>,
}

#[derive(Template)]
#[template(path = "build.html")]
struct BuildPage {
    frame: Frame,
    has_builder: bool,
    recipes: Vec<Listed>,
    chosen: String,
    parameters: Vec<Choice>,
    image: String,
    note: String,
    error: String,
}

/// What somebody typed, and what is wrong with it.
#[derive(Default)]
struct Typed {
    recipe: String,
    set: BTreeMap<String, String>,
    image: String,
    note: String,
    error: String,
}

fn page(admin: &Admin, status: StatusCode, typed: Typed) -> Response {
    let Typed { recipe: named, set, image, note, error } = typed;
    let recipes = Recipe::ours();
    let known = recipes.iter().find(|(name, _)| *name == named).or(recipes.first());
    let chosen = known.map(|(name, _)| (*name).to_owned()).unwrap_or_default();
    let parameters = known.into_iter().flat_map(|(_, recipe)| &recipe.parameters);
    let parameters = parameters.map(|(name, parameter)| {
        let (label, help) = parameter.about.split_once("; ").unwrap_or((&parameter.about, ""));
        Choice {
            name: name.clone(),
            label: label.to_owned(),
            help: help.to_owned(),
            value: set.get(name).unwrap_or(&parameter.default).clone(),
            choices: parameter.choices.clone(),
        }
    });
    let parameters = parameters.collect();
    let listed = recipes.iter().map(|(name, recipe)| Listed {
        name,
        title: recipe.title.clone(),
        is_chosen: *name == chosen,
    });
    let recipes = listed.collect();
    let image = if image.is_empty() { chosen.clone() } else { image };
    let (frame, has_builder) = (Frame::new(admin, "images", "Build an image"), admin.has_builder());
    render(
        status,
        &BuildPage { frame, has_builder, recipes, chosen, parameters, image, note, error },
    )
}

#[derive(serde::Deserialize)]
pub(crate) struct Options {
    #[serde(default)]
    recipe: String,
}

pub(crate) async fn show(admin: Admin, Query(options): Query<Options>) -> Page {
    let typed = Typed { recipe: options.recipe, ..Typed::default() };
    Ok(page(&admin, StatusCode::OK, typed))
}

#[derive(serde::Deserialize)]
pub(crate) struct BuildForm {
    #[serde(default)]
    recipe: String,
    #[serde(default)]
    image: String,
    #[serde(default)]
    note: String,
    #[serde(default)]
    state: VersionState,
    /// The parameters, and nothing else.
    #[serde(flatten)]
    more: BTreeMap<String, String>,
}

pub(crate) async fn build(admin: Admin, Form(form): Form<BuildForm>) -> Page {
    let BuildForm { recipe, image, note, state, more } = form;
    let set = more.into_iter().filter_map(|(name, value)| {
        Some((name.strip_prefix(SET)?.to_owned(), value.trim().to_owned()))
    });
    let set: BTreeMap<String, String> = set.collect();
    let built = async {
        let image: ImageName =
            image.trim().parse().map_err(|error: InvalidName| error.to_string())?;
        let note = Some(note.trim().to_owned()).filter(|note| !note.is_empty());
        let wanted = NewBuild { recipe: recipe.clone(), image, set: set.clone(), note, state };
        match admin.build(wanted).await {
            Ok(job) => Ok(Ok(see_other(&format!("/jobs/{}", job.number), Done::BuildOrdered))),
            Err(error) if error.is_wrong_input() => Err(error.chain()),
            Err(error) => Ok(Err(Failure::new(&admin, &error))),
        }
    };
    match built.await {
        Ok(done) => done,
        Err(error) => {
            let typed = Typed { recipe, set, image, note, error };
            Ok(page(&admin, StatusCode::UNPROCESSABLE_ENTITY, typed))
        }
    }
}
