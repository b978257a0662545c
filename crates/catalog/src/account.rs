//! What an account has, region by region: its images, and what is known of snapshots beside their content.
//!
//! A value. Every method is one call of EC2's API, with EC2's rules and the codes of its errors; what it needs to know of
//! snapshots and of the time it is told. Whoever keeps the value keeps it whole ([`Account::to_bytes`]).

mod describe;
mod error;
mod image;
mod parts;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use block::SnapshotId;
use serde::{Deserialize, Serialize};

pub use error::{ApiError, NotAnAccount};
pub use image::{Image, ImageState};
pub use parts::{
    BadPermission, Copied, Deregistered, Everybody, LaunchPermission, PermissionChange, ResourceId,
    SnapshotNotes,
};

use crate::time::years_after;
use crate::{AmiId, Home, RegisterImage, Rule, RuleError, Tag, image_name_rules, limits, tag_rules};

/// The version of the form that is written. Others are refused.
const VERSION: u32 = 1;
/// More ids nobody draws.
const MOST_DRAWN: u64 = u64::MAX / 2;

/// An account: 12 digits, and what it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    version: u32,
    account: String,
    /// How many ids were drawn. None is drawn twice, whatever became of the first.
    drawn: u64,
    regions: BTreeMap<String, Region>,
}

/// What an account has in a region.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Region {
    images: BTreeMap<AmiId, Image>,
    /// Snapshots of which there is something to say. One that no region has is in the home region.
    snapshots: BTreeMap<SnapshotId, SnapshotNotes>,
}

/// A name or description that a request gives anew.
fn check_words(name: Option<&str>, description: Option<&str>) -> Result<(), ApiError> {
    let rules = name.map(image_name_rules).unwrap_or_default();
    if !rules.is_empty() {
        let broken = rules.into_iter().map(|rule| RuleError { field: "Name".to_owned(), rule });
        return Err(ApiError::Rules { rules: broken.collect() });
    }
    match description.map(|text| text.chars().count()) {
        Some(length) if length > limits::MAX_DESCRIPTION => {
            let rule = Rule::DescriptionLength { length };
            Err(ApiError::Rules { rules: vec![RuleError { field: "Description".to_owned(), rule }] })
        }
        _ => Ok(()),
    }
}

impl Account {
    /// An account that has nothing yet, begun at a time in seconds since 1970. Its ids go on from there: one that is begun anew where
    /// another was lost draws none of the other's.
    pub fn new(account: &str, begun: i64) -> Self {
        const MOST_A_SECOND: u32 = 20;
        let begun = u64::try_from(begun).unwrap_or(0).min(1 << 40) << MOST_A_SECOND;
        Self { version: VERSION, account: account.to_owned(), drawn: begun, regions: BTreeMap::new() }
    }

    /// Reads what [`Account::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NotAnAccount> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Versioned { version } = serde_json::from_slice(bytes)?;
        if version != VERSION {
            return Err(NotAnAccount::Version { version });
        }
        let account: Self = serde_json::from_slice(bytes)?;
        let images = account.regions.values().flat_map(|region| &region.images);
        if images.into_iter().any(|(id, image)| *id != image.image_id) || account.drawn > MOST_DRAWN {
            return Err(NotAnAccount::Damaged("its ids are in disorder".to_owned()));
        }
        Ok(account)
    }

    /// The account as JSON: the same value always as the same bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Maps with keys of text, texts and numbers: nothing of it can fail.
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// Its 12 digits.
    pub fn id(&self) -> &str {
        &self.account
    }

    /// The home of an image in a region.
    fn home(&self, region: &str) -> Home {
        Home { account: self.account.clone(), region: region.to_owned() }
    }

    fn region(&mut self, region: &str) -> &mut Region {
        self.regions.entry(region.to_owned()).or_default()
    }

    fn draw(&mut self) -> u64 {
        self.drawn += 1;
        self.drawn
    }

    /// The images of a region, by id.
    pub fn images(&self, region: &str) -> impl Iterator<Item = &Image> {
        self.regions.get(region).into_iter().flat_map(|region| region.images.values())
    }

    /// An image by its id, or by its name.
    pub fn image(&self, region: &str, wanted: &str) -> Result<&Image, ApiError> {
        let found = match wanted.parse::<AmiId>() {
            Ok(id) => self.images(region).find(|image| image.image_id == id),
            Err(_) => self.images(region).find(|image| image.registration.name == wanted),
        };
        found.ok_or_else(|| {
            let elsewhere = self.regions.iter().find(|(_, region)| {
                let mut images = region.images.values();
                images.any(|image| image.image_id.to_string() == wanted || image.registration.name == wanted)
            });
            ApiError::NoImage {
                wanted: wanted.to_owned(),
                region: region.to_owned(),
                elsewhere: elsewhere.map(|(name, _)| name.clone()),
            }
        })
    }

    fn image_mut(&mut self, region: &str, id: AmiId) -> Result<&mut Image, ApiError> {
        let missing =
            ApiError::NoImage { wanted: id.to_string(), region: region.to_owned(), elsewhere: None };
        self.regions.get_mut(region).and_then(|region| region.images.get_mut(&id)).ok_or(missing)
    }

    fn check_name_is_free(&self, region: &str, name: &str) -> Result<(), ApiError> {
        match self.images(region).find(|image| image.registration.name == name) {
            None => Ok(()),
            Some(image) => Err(ApiError::DuplicateName { name: name.to_owned(), image: image.image_id }),
        }
    }

    /// In which region a snapshot is, of those that there are: one that nothing is said of is in the home region.
    pub fn region_of(&self, snapshot: SnapshotId) -> &str {
        let named = self.regions.iter().find(|(_, region)| region.snapshots.contains_key(&snapshot));
        named.map_or(Home::REGION, |(name, _)| name)
    }

    /// What is said of a snapshot.
    pub fn notes(&self, snapshot: SnapshotId) -> Option<&SnapshotNotes> {
        self.regions.get(self.region_of(snapshot))?.snapshots.get(&snapshot)
    }

    /// Every image, in whatever region, with each of its snapshots.
    pub fn used_snapshots(&self) -> Vec<(AmiId, SnapshotId)> {
        let images = self.regions.values().flat_map(|region| region.images.values());
        images.flat_map(|image| image.snapshots().map(|snapshot| (image.image_id, snapshot))).collect()
    }

    /// The images, in whatever region, that have a volume from a snapshot.
    pub fn users_of(&self, snapshot: SnapshotId) -> Vec<AmiId> {
        let images = self.regions.values().flat_map(|region| region.images.values());
        images
            .filter(|image| image.snapshots().any(|used| used == snapshot))
            .map(|image| image.image_id)
            .collect()
    }

    /// `RegisterImage`. `gib` knows the size of every snapshot that there is; `now` is in seconds since 1970.
    pub fn register_image(
        &mut self,
        region: &str,
        mut request: RegisterImage,
        now: i64,
        gib: impl Fn(SnapshotId) -> Option<u64>,
    ) -> Result<AmiId, ApiError> {
        let here = |snapshot| if self.region_of(snapshot) == region { gib(snapshot) } else { None };
        // A volume from a snapshot is as large as it, unless the request wants more.
        for ebs in request.block_device_mappings.iter_mut().filter_map(|entry| entry.ebs.as_mut()) {
            ebs.volume_size = ebs.volume_size.or_else(|| here(ebs.snapshot_id?));
        }
        request.check().map_err(|rules| ApiError::Rules { rules })?;
        let snapshots =
            request.block_device_mappings.iter().filter_map(|entry| entry.ebs.as_ref()?.snapshot_id);
        if let Some(snapshot) = snapshots.into_iter().find(|id| here(*id).is_none() && gib(*id).is_some()) {
            let elsewhere = Some(self.region_of(snapshot).to_owned());
            return Err(ApiError::NoSnapshot { snapshot, region: region.to_owned(), elsewhere });
        }
        request.check_snapshots(here).map_err(|rules| ApiError::Rules { rules })?;
        self.check_name_is_free(region, &request.name)?;
        let image_id = self.home(region).drawn_ami_id(self.draw());
        self.region(region).images.insert(image_id, Image::new(image_id, request, now));
        Ok(image_id)
    }

    /// `CopyImage`, its beginning: the copy, with the ids that are drawn for it and its snapshots. Whoever calls keeps this account,
    /// makes the snapshots with the content of those that they are copies of, and ends the call with [`Account::finish_copy`]. Tags come
    /// with it when they are asked for, launch permissions never.
    pub fn begin_copy(
        &mut self,
        from: (&str, AmiId),
        region: &str,
        name: Option<&str>,
        description: Option<&str>,
        with_tags: bool,
        now: i64,
    ) -> Result<Copied, ApiError> {
        let (source_region, source) = from;
        let original = self.image(source_region, &source.to_string())?.clone();
        if original.state == ImageState::Disabled {
            return Err(ApiError::Unavailable { image: source });
        }
        check_words(name, description)?;
        let mut registration = original.registration.clone();
        registration.name = name.unwrap_or(&registration.name).to_owned();
        self.check_name_is_free(region, &registration.name)?;
        if let Some(description) = description {
            registration.description = Some(description.to_owned());
        }
        let image_id = self.home(region).drawn_ami_id(self.draw());
        let mut snapshots: Vec<(SnapshotId, SnapshotId)> = Vec::new();
        for ebs in registration.block_device_mappings.iter_mut().filter_map(|entry| entry.ebs.as_mut()) {
            let Some(old) = ebs.snapshot_id else { continue };
            // Two volumes may come from one snapshot.
            let known = snapshots.iter().find(|(copied, _)| *copied == old).map(|(_, new)| *new);
            let new = known.unwrap_or_else(|| self.home(region).drawn_snapshot_id(self.draw()));
            if known.is_none() {
                snapshots.push((old, new));
            }
            ebs.snapshot_id = Some(new);
        }
        for (old, new) in &snapshots {
            let description = format!(
                "Copied for DestinationAmi {image_id} from SourceAmi {source} for SourceSnapshot {old}"
            );
            let notes = SnapshotNotes { description: Some(description), ..SnapshotNotes::default() };
            self.region(region).snapshots.insert(*new, notes);
        }
        let mut image = Image::new(image_id, registration, now);
        image.source = Some((source_region.to_owned(), source));
        if with_tags {
            image.tags = original.tags;
        }
        Ok(Copied { image, snapshots })
    }

    /// `CopyImage`, its end: the snapshots are there.
    pub fn finish_copy(&mut self, region: &str, copied: &Copied) -> Result<(), ApiError> {
        self.check_name_is_free(region, &copied.image.registration.name)?;
        self.region(region).images.insert(copied.image.image_id, copied.image.clone());
        Ok(())
    }

    /// `DeregisterImage`. With `delete_snapshots` also the snapshots that no other image uses: whoever calls deletes them, and tells
    /// ([`Account::forget_snapshots`]).
    pub fn deregister_image(
        &mut self,
        region: &str,
        id: AmiId,
        delete_snapshots: bool,
        now: i64,
    ) -> Result<Deregistered, ApiError> {
        let image = self.image_mut(region, id)?;
        if image.is_protected(now) {
            return Err(ApiError::Protected { image: id, until: image.protected_until(now) });
        }
        let used: BTreeSet<SnapshotId> = image.snapshots().collect();
        self.region(region).images.remove(&id);
        let (left, deleted) =
            used.into_iter().partition(|snapshot| !delete_snapshots || !self.users_of(*snapshot).is_empty());
        Ok(Deregistered { image_id: id, deleted, left })
    }

    /// `DeleteSnapshot`: whether it may go. Whoever calls deletes it, and tells ([`Account::forget_snapshots`]). EC2 keeps those of root
    /// volumes that registered images use; here those of all their volumes are kept, since an image that cannot be launched is
    /// no use to anybody.
    pub fn check_deletion(&self, id: SnapshotId) -> Result<(), ApiError> {
        match self.users_of(id).first() {
            Some(image) => Err(ApiError::SnapshotInUse { snapshot: id, image: *image }),
            None => Ok(()),
        }
    }

    /// Drops what is said of snapshots that are there no more.
    pub fn forget_snapshots(&mut self, ids: &[SnapshotId]) {
        for region in self.regions.values_mut() {
            region.snapshots.retain(|id, _| !ids.contains(id));
        }
    }

    /// `ModifyImageAttribute` of launch permissions. Whether anything changed.
    pub fn modify_launch_permission(
        &mut self,
        region: &str,
        id: AmiId,
        change: PermissionChange,
        of: &[LaunchPermission],
    ) -> Result<bool, ApiError> {
        let image = self.image_mut(region, id)?;
        if image.state == ImageState::Disabled && change == PermissionChange::Add {
            return Err(ApiError::Unavailable { image: id });
        }
        let before = image.launch_permissions.len();
        for permission in of {
            match change {
                PermissionChange::Add => image.launch_permissions.insert(permission.clone()),
                PermissionChange::Remove => image.launch_permissions.remove(permission),
            };
        }
        if image.is_public() {
            image.deprecation_time = Some(image.last_public_deprecation());
        }
        Ok(image.launch_permissions.len() != before)
    }

    /// `CreateTags`: of each key the new value counts.
    pub fn create_tags(&mut self, region: &str, resource: ResourceId, tags: &[Tag]) -> Result<(), ApiError> {
        for tag in tags {
            if let Some(rule) = tag_rules(&tag.key, &tag.value).into_iter().next() {
                return Err(ApiError::InvalidTag { rule });
            }
        }
        let on = self.tags_of(region, resource)?;
        let mut all = on.clone();
        all.extend(tags.iter().map(|tag| (tag.key.clone(), tag.value.clone())));
        if all.len() > limits::MAX_TAGS {
            return Err(ApiError::TagLimit { resource, given: all.len() });
        }
        *on = all;
        Ok(())
    }

    /// `DeleteTags`: those of these keys, and with a value (`KEY=VALUE`) only where it is that value. Says how many there were.
    pub fn delete_tags(
        &mut self,
        region: &str,
        resource: ResourceId,
        keys: &[String],
    ) -> Result<usize, ApiError> {
        let on = self.tags_of(region, resource)?;
        let before = on.len();
        for wanted in keys {
            // A key may have an `=` itself.
            on.retain(|key, value| {
                key != wanted && wanted.strip_prefix(&**key) != Some(&format!("={value}"))
            });
        }
        Ok(before - on.len())
    }

    fn tags_of(
        &mut self,
        region: &str,
        resource: ResourceId,
    ) -> Result<&mut BTreeMap<String, String>, ApiError> {
        match resource {
            ResourceId::Image(id) => Ok(&mut self.image_mut(region, id)?.tags),
            ResourceId::Snapshot(id) if self.region_of(id) != region => Err(ApiError::NoSnapshot {
                snapshot: id,
                region: region.to_owned(),
                elsewhere: Some(self.region_of(id).to_owned()),
            }),
            ResourceId::Snapshot(id) => Ok(&mut self.region(region).snapshots.entry(id).or_default().tags),
        }
    }

    /// `EnableImage` and `DisableImage`: a disabled image is launched and copied by nobody, and shared with nobody any more.
    pub fn set_enabled(&mut self, region: &str, id: AmiId, enabled: bool) -> Result<(), ApiError> {
        let image = self.image_mut(region, id)?;
        image.state = if enabled { ImageState::Available } else { ImageState::Disabled };
        if !enabled {
            image.launch_permissions.clear();
        }
        Ok(())
    }

    /// `EnableImageDeprecation`, and without a time `DisableImageDeprecation`. EC2 rounds to the nearest minute and takes times up to ten
    /// years ahead. A public image is deprecated two years after its creation at the latest, and no later than was said once.
    pub fn set_deprecation(
        &mut self,
        region: &str,
        id: AmiId,
        at: Option<i64>,
        now: i64,
    ) -> Result<(), ApiError> {
        let image = self.image_mut(region, id)?;
        let at = at.map(|at| at.saturating_add(30).div_euclid(60) * 60);
        let most = match image.is_public() {
            true => image.last_public_deprecation(),
            false => years_after(now, 10),
        };
        match at {
            None if image.is_public() => return Err(ApiError::PublicDeprecation { image: id }),
            Some(at) if at <= now => return Err(ApiError::PastDeprecation { at }),
            Some(at) if at > most => return Err(ApiError::LateDeprecation { at, most }),
            _ => image.deprecation_time = at,
        }
        Ok(())
    }

    /// `EnableImageDeregistrationProtection`.
    pub fn protect(&mut self, region: &str, id: AmiId, with_cooldown: bool) -> Result<(), ApiError> {
        let image = self.image_mut(region, id)?;
        image.protection = true;
        image.cooldown = with_cooldown;
        Ok(())
    }

    /// `DisableImageDeregistrationProtection`: with a cooldown it lasts a day more.
    pub fn unprotect(&mut self, region: &str, id: AmiId, now: i64) -> Result<(), ApiError> {
        const DAY: i64 = 24 * 3600;
        let image = self.image_mut(region, id)?;
        if image.protection && image.cooldown {
            image.protected_until = Some(now + DAY);
        }
        image.protection = false;
        image.cooldown = false;
        Ok(())
    }
}
