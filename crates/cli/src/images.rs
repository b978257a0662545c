//! `image …`: the images of an account on this machine.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::store::{LocalBackend, Store};
use anyhow::{Context, Result};
use catalog::{
    Account, ApiError, Image, ImageState, LaunchPermission, PermissionChange, RegisterImage, Rule, Tag,
    format_time, parse_time,
};
use clap::{Args, Subcommand};
use ec2::Ec2;
use serde_json::{Value, json};

use crate::DONE;
use crate::init::Refused;
use crate::store::show;
use crate::surroundings::{Unusable, now, store_folder};
use crate::terminal::bytes;

/// The largest registration that is read, in bytes.
const MAX_REGISTRATION: u64 = 1 << 20;

#[derive(Debug, Args)]
pub(crate) struct ImageArguments {
    #[command(subcommand)]
    command: ImageCommand,
    /// The region, by any name of small letters, digits and dashes
    #[arg(long, global = true, value_name = "REGION", default_value = catalog::Home::REGION)]
    region: String,
    /// The store: a folder [default: that of BAKEHOUSE_STORE, else bakehouse/store in the user's data folder]
    #[arg(long, global = true, value_name = "STORE")]
    store: Option<PathBuf>,
    /// Print one JSON object on standard output, in EC2's shape
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    /// Register what was baked as an image
    ///
    /// The image gets an id of its own; its volumes come from the snapshots that the bake left in the store.
    Register {
        /// The outputs' folder, or a file in the shape of `aws ec2 register-image --cli-input-json`
        #[arg(value_name = "DIR|FILE")]
        from: PathBuf,
        /// Another name than the registration's
        #[arg(long)]
        name: Option<String>,
        /// Another description than the registration's
        #[arg(long)]
        description: Option<String>,
    },
    /// List the images of the region
    Ls {
        /// Disabled ones, too
        #[arg(long)]
        include_disabled: bool,
    },
    /// List the snapshots of the region: which images use them, how large they are
    Snapshots,
    /// Say all that is known of an image
    Show {
        /// The image, by id or name
        image: String,
    },
    /// Copy an image from another region into this one: new ids, the same blocks
    Copy {
        /// The image, by id or name
        image: String,
        /// The region that it is in
        #[arg(long, value_name = "REGION", default_value = catalog::Home::REGION)]
        source_region: String,
        /// The copy's name [default: the image's]
        #[arg(long)]
        name: Option<String>,
        /// The copy's description [default: the image's]
        #[arg(long)]
        description: Option<String>,
        /// Copy its tags, too
        #[arg(long)]
        copy_tags: bool,
    },
    /// Let others launch an image
    Share {
        /// The image, by id or name
        image: String,
        /// Accounts (12 digits), ARNs of organizations or organizational units, or `all`
        #[arg(required = true)]
        with: Vec<LaunchPermission>,
    },
    /// Let others launch an image no more
    Unshare {
        /// The image, by id or name
        image: String,
        /// Accounts (12 digits), ARNs of organizations or organizational units, or `all`
        #[arg(required = true)]
        with: Vec<LaunchPermission>,
    },
    /// Tag an image or a snapshot
    Tag {
        /// The image, by id or name, or a snapshot by its id
        resource: String,
        /// The tags; of a key that is there the new value counts
        #[arg(required = true, value_name = "KEY=VALUE", value_parser = tag)]
        tags: Vec<Tag>,
    },
    /// Take tags off an image or a snapshot
    Untag {
        /// The image, by id or name, or a snapshot by its id
        resource: String,
        /// The tags' keys; with a value only where it is that value
        #[arg(required = true, value_name = "KEY[=VALUE]")]
        keys: Vec<String>,
    },
    /// Say from when on an image is deprecated
    Deprecate {
        /// The image, by id or name
        image: String,
        /// When: 2027-01-31T12:00:00Z
        #[arg(long, value_parser = moment, required_unless_present = "never")]
        at: Option<i64>,
        /// It is not
        #[arg(long, conflicts_with = "at")]
        never: bool,
    },
    /// Let nobody launch or copy an image for now, and share it with nobody any more
    Disable {
        /// The image, by id or name
        image: String,
    },
    /// Let a disabled image be launched and copied again
    Enable {
        /// The image, by id or name
        image: String,
    },
    /// Protect an image from being deregistered
    Protect {
        /// The image, by id or name
        image: String,
        /// For a day after the protection ends, too
        #[arg(long)]
        with_cooldown: bool,
    },
    /// End an image's protection from being deregistered
    Unprotect {
        /// The image, by id or name
        image: String,
    },
    /// Register an image no more; its snapshots stay unless they are to go, too
    Deregister {
        /// The image, by id or name
        image: String,
        /// Take its snapshots out of the store, too, as far as no other image uses them
        #[arg(long)]
        delete_snapshots: bool,
    },
}

fn tag(text: &str) -> Result<Tag, String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("`{text}` has no `=`: write KEY=VALUE"))?;
    Ok(Tag { key: key.to_owned(), value: value.to_owned() })
}

fn moment(text: &str) -> Result<i64, String> {
    parse_time(text).ok_or_else(|| format!("`{text}` is no time: write it as 2027-01-31T12:00:00Z, in UTC"))
}

/// The registration of an outputs' folder or a file.
fn registration(from: &Path) -> Result<(PathBuf, RegisterImage)> {
    let file = if from.is_dir() { from.join(bake::REGISTRATION) } else { from.to_owned() };
    let refused = |reason| Refused { path: file.clone(), reason };
    let mut text = Vec::new();
    let read = File::open(&file).and_then(|opened| opened.take(MAX_REGISTRATION + 1).read_to_end(&mut text));
    match read {
        Ok(len) if len as u64 > MAX_REGISTRATION => {
            return Err(refused("is larger than 1 MiB: it is no registration").into());
        }
        Ok(_) => {}
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Err(refused(match from.is_dir() {
                true => {
                    "is not there: name the folder that a bake wrote, with register-image.json in it (out/NAME/ARCH)"
                }
                false => "is not there: name the folder that a bake wrote, or a registration's file",
            })
            .into());
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
    }
    let request =
        RegisterImage::from_json(&text).map_err(|error| Unusable(format!("{}: {error}", file.display())))?;
    Ok((file, request))
}

/// `bakehouse image`.
pub(crate) fn image(arguments: &ImageArguments) -> Result<u8> {
    let now = now()?;
    let json = arguments.json;
    let place = store_folder(arguments.store.as_deref())?;
    let open = || -> Result<Ec2> {
        let store = Arc::new(Store::open(Arc::new(LocalBackend::new(&place)))?);
        Ok(Ec2::new(store, &arguments.region, now)?)
    };
    ec2::check_region(&arguments.region)?;
    // What an image is after a call, as DescribeImages has it and for people.
    let told = |ec2: &Ec2, image: &str, said: &str| -> Result<()> {
        let account = ec2.account()?;
        let image = account.image(&arguments.region, image)?;
        let value = json!({ "Images": [account.describe(image, now)] });
        show(json, value, || vec![format!("{}: {said}", image.image_id)])
    };
    match &arguments.command {
        ImageCommand::Register { from, name, description } => {
            let (file, mut request) = registration(from)?;
            if let Some(name) = name {
                request.name.clone_from(name);
            }
            request.description = description.clone().or(request.description);
            let id = open()?
                .register_image(&request)
                .map_err(|error| not_registered(error, &file, &arguments.region))?;
            show(json, json!({ "ImageId": id }), || vec![format!("{id}: registered {}", request.name)])?;
        }
        ImageCommand::Ls { include_disabled } => {
            let account = open()?.account()?;
            let mut images: Vec<&Image> = account.images(&arguments.region).collect();
            images.retain(|image| *include_disabled || image.state != ImageState::Disabled);
            images.sort_by(|a, b| {
                (a.creation_date, &a.registration.name).cmp(&(b.creation_date, &b.registration.name))
            });
            let values: Vec<Value> = images.iter().map(|image| account.describe(image, now)).collect();
            show(json, json!({ "Images": values }), || images.iter().map(|image| row(image, now)).collect())?;
        }
        ImageCommand::Snapshots => {
            let ec2 = open()?;
            // What bakes keep for themselves is no volume.
            let mut snapshots = ec2.snapshots()?;
            snapshots.retain(|snapshot| !bake::is_kept_root(&snapshot.record.name));
            let values: Vec<Value> =
                snapshots.iter().map(|snapshot| ec2.describe_snapshot(snapshot)).collect();
            show(json, json!({ "Snapshots": values }), || snapshots.iter().map(snapshot_row).collect())?;
        }
        ImageCommand::Show { image } => {
            let ec2 = open()?;
            let account = ec2.account()?;
            let image = account.image(&arguments.region, image)?;
            let permissions: Vec<&LaunchPermission> = image.launch_permissions.iter().collect();
            let value = json!({ "Images": [account.describe(image, now)], "LaunchPermissions": permissions });
            let missing = ec2.missing_snapshots()?.into_iter().filter(|(id, _)| *id == image.image_id);
            show(json, value, || {
                let mut lines = sheet(&account, image, now);
                lines.extend(
                    missing.map(|(_, snapshot)| format!("  {snapshot} is not in the store any more")),
                );
                lines
            })?;
        }
        ImageCommand::Copy { image, source_region, name, description, copy_tags } => {
            let (name, description) = (name.as_deref(), description.as_deref());
            let copied = open()?.copy_image(source_region, image, name, description, *copy_tags)?;
            show(json, json!({ "ImageId": copied.image.image_id }), || {
                let id = copied.image.image_id;
                let mut lines = vec![format!("{id}: copied from {source_region} to {}", arguments.region)];
                lines.extend(copied.snapshots.iter().map(|(old, new)| format!("  {new}, of {old}")));
                lines
            })?;
        }
        ImageCommand::Share { image, with } => {
            let ec2 = open()?;
            ec2.modify_launch_permission(image, PermissionChange::Add, with)?;
            told(&ec2, image, &format!("may be launched by {}, too", names(with)))?;
        }
        ImageCommand::Unshare { image, with } => {
            let ec2 = open()?;
            ec2.modify_launch_permission(image, PermissionChange::Remove, with)?;
            told(&ec2, image, &format!("may not be launched by {}", names(with)))?;
        }
        ImageCommand::Tag { resource, tags } => {
            open()?.create_tags(resource, tags)?;
            show(json, json!({ "Return": true }), || vec![format!("{resource}: tagged")])?;
        }
        ImageCommand::Untag { resource, keys } => {
            let gone = open()?.delete_tags(resource, keys)?;
            show(json, json!({ "Return": true }), || vec![format!("{resource}: {gone} tags taken off")])?;
        }
        ImageCommand::Deprecate { image, at, never: _ } => {
            let ec2 = open()?;
            ec2.set_deprecation(image, *at)?;
            let said = ec2.image(image)?.deprecation_time.map_or_else(
                || "not deprecated".to_owned(),
                |at| format!("deprecated from {}", format_time(at)),
            );
            told(&ec2, image, &said)?;
        }
        ImageCommand::Disable { image } => {
            let ec2 = open()?;
            ec2.set_enabled(image, false)?;
            told(&ec2, image, "disabled, and private")?;
        }
        ImageCommand::Enable { image } => {
            let ec2 = open()?;
            ec2.set_enabled(image, true)?;
            told(&ec2, image, "enabled")?;
        }
        ImageCommand::Protect { image, with_cooldown } => {
            let ec2 = open()?;
            ec2.protect(image, *with_cooldown)?;
            told(&ec2, image, "protected from being deregistered")?;
        }
        ImageCommand::Unprotect { image } => {
            let ec2 = open()?;
            ec2.unprotect(image)?;
            let until = ec2.image(image)?.protected_until(now);
            let said = until.map_or_else(
                || "not protected".to_owned(),
                |until| format!("protected until {}", format_time(until)),
            );
            told(&ec2, image, &said)?;
        }
        ImageCommand::Deregister { image, delete_snapshots } => {
            let done = open()?.deregister_image(image, *delete_snapshots)?;
            // Others use what stays although it was to go.
            let skipped = done.left.iter().filter(|_| *delete_snapshots).map(|id| (id, "skipped"));
            let results: Vec<Value> = (done.deleted.iter().map(|id| (id, "success")).chain(skipped))
                .map(|(id, code)| json!({"SnapshotId": id, "ReturnCode": code}))
                .collect();
            show(json, json!({ "Return": true, "DeleteSnapshotResults": results }), || {
                let mut lines = vec![format!("{image}: deregistered")];
                lines.extend(done.deleted.iter().map(|id| format!("  {id}: taken out of the store")));
                lines.extend(done.left.iter().map(|id| format!("  {id}: stays")));
                if !done.deleted.is_empty() {
                    lines.push("`bakehouse store gc` frees their room".to_owned());
                }
                lines
            })?;
        }
    }
    Ok(DONE)
}

/// A registration that was refused, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(crate) struct NotRegistered {
    text: String,
    source: ec2::Error,
}

impl NotRegistered {
    /// EC2's code for it.
    pub(crate) fn code(&self) -> Option<&'static str> {
        match &self.source {
            ec2::Error::Api(error) => Some(error.code()),
            _ => None,
        }
    }
}

/// Says where a refused registration stands, and what to do about snapshots that are not there.
fn not_registered(source: ec2::Error, file: &Path, region: &str) -> anyhow::Error {
    let ec2::Error::Api(error) = &source else { return source.into() };
    let help = match error {
        ApiError::Rules { rules }
            if rules.iter().any(|broken| matches!(broken.rule, Rule::UnknownSnapshot { .. })) =>
        {
            "\nhelp: bake it into this store, or name the store that it was baked into with --store"
                .to_owned()
        }
        ApiError::NoSnapshot { elsewhere: Some(elsewhere), .. } => format!(
            "\nhelp: register it there (--region {elsewhere}), then `bakehouse image copy IMAGE --source-region {elsewhere} --region {region}`"
        ),
        _ => String::new(),
    };
    let text = format!("{}: {error}{help}", file.display());
    NotRegistered { text, source }.into()
}

fn names(permissions: &[LaunchPermission]) -> String {
    permissions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A line of the list.
fn row(image: &Image, now: i64) -> String {
    let it = &image.registration;
    let mut words = Vec::new();
    words.extend((image.state == ImageState::Disabled).then_some("disabled"));
    words.extend(image.is_public().then_some("public"));
    words.extend(image.deprecation_time.is_some_and(|at| at <= now).then_some("deprecated"));
    let words = words.into_iter().fold(String::new(), |line, word| format!("{line}  {word}"));
    format!(
        "{}  {:6}  {}  {}{words}",
        image.image_id,
        it.architecture,
        format_time(image.creation_date),
        it.name
    )
}

/// A line of the list of snapshots.
fn snapshot_row(snapshot: &ec2::Snapshot) -> String {
    let record = &snapshot.record;
    let (size, data) = (bytes(record.size), bytes(record.blocks * block::BLOCK_SIZE));
    let images: Vec<String> = snapshot.images.iter().map(ToString::to_string).collect();
    let users = if images.is_empty() { String::new() } else { format!("  of {}", images.join(", ")) };
    let time = format_time(record.time);
    format!("{}  {size:>10} {data:>10}  {time}  {}{users}", record.id, record.name)
}

/// All that is known of an image, for people.
fn sheet(account: &Account, image: &Image, now: i64) -> Vec<String> {
    let it = &image.registration;
    let mut lines = vec![format!("{} {}", image.image_id, it.name)];
    // One line each, whatever is in it.
    let mut say = |what: &str, value: String| {
        lines.push(format!("  {what:14}{}", value.replace(char::is_control, " ")));
    };
    if let Some(text) = &it.description {
        say("description", text.clone());
    }
    say("owner", account.id().to_owned());
    say("created", format_time(image.creation_date));
    say("state", image.state.as_str().to_owned());
    say("architecture", it.architecture.to_string());
    if let Some(mode) = it.boot_mode {
        say("boot mode", mode.to_string());
    }
    if let Some((region, id)) = &image.source {
        say("copy of", format!("{id} in {region}"));
    }
    if let Some(at) = image.deprecation_time {
        say("deprecated", format!("from {}", format_time(at)));
    }
    if image.is_protected(now) {
        say("protection", image.protection(now));
    }
    for permission in &image.launch_permissions {
        say("shared with", permission.to_string());
    }
    for (key, value) in &image.tags {
        say("tag", format!("{key}={value}"));
    }
    for entry in &it.block_device_mappings {
        let root = if entry.device_name == it.root_device_name { ", root" } else { "" };
        let what = match (&entry.ebs, entry.virtual_name) {
            (Some(ebs), _) => {
                let size = ebs.volume_size.map_or_else(String::new, |gib| format!("{gib} GiB "));
                let kind = ebs.volume_type.map_or_else(String::new, |kind| kind.to_string());
                let from = ebs.snapshot_id.map_or_else(|| ", blank".to_owned(), |id| format!(" from {id}"));
                format!("{size}{kind}{from}{root}")
            }
            (None, Some(name)) => format!("instance store {name}"),
            (None, None) => "nothing".to_owned(),
        };
        say(entry.device_name.as_str(), what);
    }
    lines
}
