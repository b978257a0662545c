//! EC2's calls for images, carried out on this machine.
//!
//! *What comes in:* requests in AWS's words, a store, the time as a value. *What goes out:* images and snapshots of an
//! account, region by region, and EC2's refusals ([`catalog::ApiError`]). *What it may not know:* recipes, QEMU, how disks are
//! made. The rules are `catalog`'s, the content is `store`'s; here they meet.
//!
//! The account is the document of the store: one value, read whole and replaced whole by compare-and-swap. Whoever changes it has the
//! store alone meanwhile ([`store::Alone`]), so that no snapshot goes while an image is made of it. A copy draws its ids, and keeps that it did,
//! before it makes snapshots; these are there before an image names them, and go after none does. What an interrupted call leaves is a
//! snapshot that no image uses, in its region, with its description.

use std::collections::BTreeMap;
use std::sync::Arc;

use block::{BLOCK_SIZE, GIB};
use catalog::{
    Account, AmiId, ApiError, Copied, Deregistered, Home, Image, LaunchPermission, NotAnAccount,
    PermissionChange, RegisterImage, ResourceId, SnapshotId, Tag, format_time,
};
use serde_json::json;
use store::{Alone, Record, Store};

/// How often a call begins again because others were faster.
const ATTEMPTS: usize = 20;

/// Why a call was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// EC2 would refuse it.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// What the store has of the account cannot be read.
    #[error("{place}/account: {source}")]
    Account {
        /// The store.
        place: String,
        /// Why.
        source: NotAnAccount,
    },
    /// An image is registered no more, and its snapshots are still there.
    #[error("{image} is deregistered; its snapshots stay ({}): {source}", .snapshots.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Left {
        /// The image.
        image: AmiId,
        /// Its snapshots.
        snapshots: Vec<SnapshotId>,
        /// Why.
        source: Box<store::Error>,
    },
    /// A region that none is called.
    #[error("`{0}` is no region's name: small letters, digits and dashes, as in eu-west-1")]
    Region(String),
    /// Others changed the account again and again.
    #[error("{place}: others changed the account {ATTEMPTS} times meanwhile; try again")]
    Busy {
        /// The store.
        place: String,
    },
}

impl Error {
    /// Whether it is the user's mistake.
    pub fn is_mistake(&self) -> bool {
        match self {
            Self::Api(_) | Self::Region(_) => true,
            Self::Store(error) => error.is_mistake(),
            Self::Account { source, .. } => matches!(source, NotAnAccount::Version { .. }),
            Self::Busy { .. } | Self::Left { .. } => false,
        }
    }
}

/// Whether a region can have this name.
pub fn check_region(name: &str) -> Result<(), Error> {
    let word = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    let good = (1..=64).contains(&name.len()) && name.bytes().all(word) && !name.starts_with('-');
    if good { Ok(()) } else { Err(Error::Region(name.to_owned())) }
}

/// The account of a store, in one region.
pub struct Ec2 {
    store: Arc<Store>,
    region: String,
    /// Seconds since 1970.
    now: i64,
}

/// A snapshot, with what is said of it.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// What the store knows of it.
    pub record: Record,
    /// Its description, if anything is said.
    pub description: Option<String>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// The images that use it.
    pub images: Vec<AmiId>,
}

impl Ec2 {
    /// The account of `store`, in `region`, at `now` (seconds since 1970).
    pub fn new(store: Arc<Store>, region: &str, now: i64) -> Result<Self, Error> {
        check_region(region)?;
        Ok(Self { store, region: region.to_owned(), now })
    }

    /// The account as it is now.
    pub fn account(&self) -> Result<Account, Error> {
        Ok(self.read()?.0)
    }

    fn read(&self) -> Result<(Account, Option<store::Tag>), Error> {
        match self.store.document()? {
            None => Ok((Account::new(Home::ACCOUNT, self.now), None)),
            Some((bytes, tag)) => {
                let account = Account::from_bytes(&bytes)
                    .map_err(|source| Error::Account { place: self.store.place(), source })?;
                Ok((account, Some(tag)))
            }
        }
    }

    /// Changes the account, once more when somebody else was faster.
    fn change<T>(
        &self,
        alone: &Alone<'_>,
        mut change: impl FnMut(&mut Account) -> Result<T, Error>,
    ) -> Result<T, Error> {
        for _ in 0..ATTEMPTS {
            let (before, tag) = self.read()?;
            let mut account = before.clone();
            let done = change(&mut account)?;
            if account == before || alone.swap_document(tag.as_ref(), &account.to_bytes())? {
                return Ok(done);
            }
        }
        Err(Error::Busy { place: self.store.place() })
    }

    fn records(&self) -> Result<BTreeMap<SnapshotId, Record>, Error> {
        Ok(self.store.list()?.into_iter().map(|record| (record.id, record)).collect())
    }

    /// `RegisterImage`. The request's snapshots are those of the store.
    pub fn register_image(&self, request: &RegisterImage) -> Result<AmiId, Error> {
        let alone = self.store.alone()?;
        self.change(&alone, |account| {
            let records = self.records()?;
            let gib = |id| records.get(&id).map(|record| record.size.div_ceil(GIB));
            Ok(account.register_image(&self.region, request.clone(), self.now, gib)?)
        })
    }

    /// The image of an id or a name.
    pub fn image(&self, wanted: &str) -> Result<Image, Error> {
        Ok(self.account()?.image(&self.region, wanted)?.clone())
    }

    /// `CopyImage`, from a region into this one: `image` is an id or a name.
    pub fn copy_image(
        &self,
        from: &str,
        image: &str,
        name: Option<&str>,
        description: Option<&str>,
        with_tags: bool,
    ) -> Result<Copied, Error> {
        check_region(from)?;
        let alone = self.store.alone()?;
        let copied = self.change(&alone, |account| {
            let source = account.image(from, image)?.image_id;
            Ok(account.begin_copy((from, source), &self.region, name, description, with_tags, self.now)?)
        })?;
        let done = self
            .copy_snapshots(&alone, from, &copied)
            .and_then(|()| self.change(&alone, |account| Ok(account.finish_copy(&self.region, &copied)?)));
        if done.is_err() {
            // What cannot be taken back stays in its region, with its description.
            let _ = self.take_back(&alone, &copied);
        }
        done.map(|()| copied)
    }

    /// Takes back a copy that was begun. Its ids are nobody else's.
    fn take_back(&self, alone: &Alone<'_>, copied: &Copied) -> Result<(), Error> {
        // It may have come about although an error was said.
        if self.account()?.images(&self.region).any(|image| image.image_id == copied.image.image_id) {
            return Ok(());
        }
        let records = self.records()?;
        let drawn: Vec<SnapshotId> = copied.snapshots.iter().map(|(_, new)| *new).collect();
        let made: Vec<SnapshotId> = drawn.iter().copied().filter(|id| records.contains_key(id)).collect();
        if !made.is_empty() {
            alone.forget(&made)?;
        }
        self.forget_notes(alone, &drawn)
    }

    fn copy_snapshots(&self, alone: &Alone<'_>, from: &str, copied: &Copied) -> Result<(), Error> {
        let records = self.records()?;
        for (old, new) in &copied.snapshots {
            // A snapshot's name in a store is for people; ids tell them apart.
            let title = records.get(old).map_or("copy", |record| record.name.as_str());
            let title = title.strip_prefix(&format!("{from}/")).unwrap_or(title);
            let mut name = format!("{}/{title}", self.region);
            while store::check_name(&name).is_err() && name.pop().is_some() {}
            alone.copy_snapshot(*old, *new, &name, self.now)?;
        }
        Ok(())
    }

    /// `DeregisterImage`; with `delete_snapshots` also the snapshots that no other image uses.
    pub fn deregister_image(&self, image: &str, delete_snapshots: bool) -> Result<Deregistered, Error> {
        let alone = self.store.alone()?;
        let records = self.records()?;
        let mut done = self.change(&alone, |account| {
            let id = account.image(&self.region, image)?.image_id;
            Ok(account.deregister_image(&self.region, id, delete_snapshots, self.now)?)
        })?;
        // Another program may have taken one away.
        done.deleted.retain(|id| records.contains_key(id));
        done.left.retain(|id| records.contains_key(id));
        if !done.deleted.is_empty() {
            let (image, snapshots) = (done.image_id, done.deleted.clone());
            alone.forget(&done.deleted).map_err(|source| Error::Left {
                image,
                snapshots,
                source: source.into(),
            })?;
            self.forget_notes(&alone, &done.deleted)?;
        }
        Ok(done)
    }

    /// `DeleteSnapshot`, of several, in whatever regions they are: all of them or none.
    pub fn delete_snapshots(&self, ids: &[SnapshotId]) -> Result<Vec<Record>, Error> {
        let alone = self.store.alone()?;
        let account = self.account()?;
        ids.iter().try_for_each(|id| account.check_deletion(*id))?;
        let forgotten = alone.forget(ids)?;
        self.forget_notes(&alone, ids)?;
        Ok(forgotten)
    }

    fn forget_notes(&self, alone: &Alone<'_>, ids: &[SnapshotId]) -> Result<(), Error> {
        self.change(alone, |account| {
            account.forget_snapshots(ids);
            Ok(())
        })
    }

    /// The images, of all regions, whose snapshots are not all in the store, and which: another program took them away.
    pub fn missing_snapshots(&self) -> Result<Vec<(AmiId, SnapshotId)>, Error> {
        let account = self.account()?;
        let records = self.records()?;
        let used = account.used_snapshots().into_iter();
        Ok(used.filter(|(_, snapshot)| !records.contains_key(snapshot)).collect())
    }

    /// The snapshots of the region, oldest first.
    pub fn snapshots(&self) -> Result<Vec<Snapshot>, Error> {
        let account = self.account()?;
        let records = self.store.list()?.into_iter();
        let here = records.filter(|record| account.region_of(record.id) == self.region);
        let with_notes = here.map(|record| {
            let notes = account.notes(record.id).cloned().unwrap_or_default();
            let images = account.users_of(record.id);
            Snapshot { record, description: notes.description, tags: notes.tags, images }
        });
        Ok(with_notes.collect())
    }

    /// A snapshot as `DescribeSnapshots` has it.
    pub fn describe_snapshot(&self, snapshot: &Snapshot) -> serde_json::Value {
        let record = &snapshot.record;
        let tags = snapshot.tags.iter().map(|(key, value)| json!({"Key": key, "Value": value}));
        let mut described = json!({
            "StorageTier": "standard",
            "FullSnapshotSizeInBytes": record.blocks * BLOCK_SIZE,
            "SnapshotId": record.id,
            "State": "completed",
            "StartTime": format_time(record.time).replace('Z', ".000Z"),
            "Progress": "100%",
            "OwnerId": Home::ACCOUNT,
            "Description": snapshot.description.as_deref().unwrap_or(&record.name),
            "VolumeSize": record.size.div_ceil(GIB),
            "Encrypted": false,
        });
        if !snapshot.tags.is_empty() {
            described["Tags"] = tags.collect();
        }
        described
    }

    /// `ModifyImageAttribute` of launch permissions. Whether anything changed.
    pub fn modify_launch_permission(
        &self,
        image: &str,
        change: PermissionChange,
        of: &[LaunchPermission],
    ) -> Result<bool, Error> {
        self.on_image(image, |account, id| account.modify_launch_permission(&self.region, id, change, of))
    }

    /// `CreateTags` on an image (by id or name) or a snapshot (by id).
    pub fn create_tags(&self, resource: &str, tags: &[Tag]) -> Result<(), Error> {
        self.on_resource(resource, |account, resource| account.create_tags(&self.region, resource, tags))
    }

    /// `DeleteTags`. Says how many there were.
    pub fn delete_tags(&self, resource: &str, keys: &[String]) -> Result<usize, Error> {
        self.on_resource(resource, |account, resource| account.delete_tags(&self.region, resource, keys))
    }

    /// `EnableImage` and `DisableImage`.
    pub fn set_enabled(&self, image: &str, enabled: bool) -> Result<(), Error> {
        self.on_image(image, |account, id| account.set_enabled(&self.region, id, enabled))
    }

    /// `EnableImageDeprecation` and, without a time, `DisableImageDeprecation`.
    pub fn set_deprecation(&self, image: &str, at: Option<i64>) -> Result<(), Error> {
        self.on_image(image, |account, id| account.set_deprecation(&self.region, id, at, self.now))
    }

    /// `EnableImageDeregistrationProtection`.
    pub fn protect(&self, image: &str, with_cooldown: bool) -> Result<(), Error> {
        self.on_image(image, |account, id| account.protect(&self.region, id, with_cooldown))
    }

    /// `DisableImageDeregistrationProtection`.
    pub fn unprotect(&self, image: &str) -> Result<(), Error> {
        self.on_image(image, |account, id| account.unprotect(&self.region, id, self.now))
    }

    fn on_image<T>(
        &self,
        image: &str,
        mut change: impl FnMut(&mut Account, AmiId) -> Result<T, ApiError>,
    ) -> Result<T, Error> {
        let alone = self.store.alone()?;
        self.change(&alone, |account| {
            let id = account.image(&self.region, image)?.image_id;
            Ok(change(account, id)?)
        })
    }

    fn on_resource<T>(
        &self,
        resource: &str,
        mut change: impl FnMut(&mut Account, ResourceId) -> Result<T, ApiError>,
    ) -> Result<T, Error> {
        let snapshot: Option<SnapshotId> = resource.parse().ok();
        let Some(id) = snapshot else {
            return self.on_image(resource, |account, id| change(account, ResourceId::Image(id)));
        };
        let alone = self.store.alone()?;
        if !self.records()?.contains_key(&id) {
            let region = self.region.clone();
            return Err(ApiError::NoSnapshot { snapshot: id, region, elsewhere: None }.into());
        }
        self.change(&alone, |account| Ok(change(account, ResourceId::Snapshot(id))?))
    }
}

#[cfg(test)]
mod tests;
