//! EC2's calls for images, carried out on this machine.
//!
//! *What comes in:* requests in AWS's words, a store, the time as a value. *What goes out:* images and snapshots of an
//! account, region by region, and EC2's refusals ([`catalog::ApiError`]). *What it may not know:* recipes, QEMU, how disks are
//! made. The rules are `catalog`'s, the content is `store`'s; here they meet.
//!
//! The account is the document of the store: one value, read whole and replaced whole by compare-and-swap, so that of two calls at
//! once each sees the other or comes after it. A snapshot is made before the account names it, and goes after the account names it
//! no more: an image's snapshots are there whatever is interrupted. What an interrupted copy leaves is a snapshot that no image uses.

use std::collections::BTreeMap;
use std::sync::Arc;

use block::{BLOCK_SIZE, GIB};
use catalog::{
    Account, AmiId, ApiError, Copied, Deregistered, Home, Image, LaunchPermission, NotAnAccount,
    PermissionChange, RegisterImage, ResourceId, SnapshotId, Tag, format_time,
};
use serde_json::json;
use store::{Record, Store};

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
            Self::Busy { .. } => false,
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
            None => Ok((Account::new(Home::ACCOUNT), None)),
            Some((bytes, tag)) => {
                let account = Account::from_bytes(&bytes)
                    .map_err(|source| Error::Account { place: self.store.place(), source })?;
                Ok((account, Some(tag)))
            }
        }
    }

    /// Changes the account, once more when somebody else was faster. `undo` takes back what `change` did beside it.
    fn change<T>(
        &self,
        mut change: impl FnMut(&mut Account) -> Result<T, Error>,
        undo: impl Fn(T) -> Result<(), Error>,
    ) -> Result<T, Error> {
        for _ in 0..ATTEMPTS {
            let (before, tag) = self.read()?;
            let mut account = before.clone();
            let done = change(&mut account)?;
            if account == before || self.store.swap_document(tag.as_ref(), &account.to_bytes())? {
                return Ok(done);
            }
            undo(done)?;
        }
        Err(Error::Busy { place: self.store.place() })
    }

    fn change_alone<T>(
        &self,
        mut change: impl FnMut(&mut Account) -> Result<T, ApiError>,
    ) -> Result<T, Error> {
        self.change(|account| Ok(change(account)?), |_| Ok(()))
    }

    fn records(&self) -> Result<BTreeMap<SnapshotId, Record>, Error> {
        Ok(self.store.list()?.into_iter().map(|record| (record.id, record)).collect())
    }

    /// `RegisterImage`. The request's snapshots are those of the store.
    pub fn register_image(&self, request: &RegisterImage) -> Result<AmiId, Error> {
        let records = self.records()?;
        let gib = |id| records.get(&id).map(|record| record.size.div_ceil(GIB));
        self.change_alone(|account| account.register_image(&self.region, request.clone(), self.now, gib))
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
        let records = self.records()?;
        let copy = |account: &mut Account| {
            let source = account.image(from, image)?.image_id;
            let copied =
                account.copy_image((from, source), &self.region, name, description, with_tags, self.now)?;
            for (old, new) in &copied.snapshots {
                // A snapshot's name in a store is for people; ids tell them apart.
                let title = records.get(old).map_or("copy", |record| record.name.as_str());
                let title = title.strip_prefix(&format!("{from}/")).unwrap_or(title);
                self.store.copy_snapshot(*old, *new, &format!("{}/{title}", self.region), self.now)?;
            }
            Ok(copied)
        };
        let undo = |copied: Copied| {
            let made: Vec<SnapshotId> = copied.snapshots.iter().map(|(_, new)| *new).collect();
            self.store.forget(&made)?;
            Ok(())
        };
        self.change(copy, undo)
    }

    /// `DeregisterImage`; with `delete_snapshots` also the snapshots that no other image uses.
    pub fn deregister_image(&self, image: &str, delete_snapshots: bool) -> Result<Deregistered, Error> {
        let records = self.records()?;
        let mut done = self.change_alone(|account| {
            let id = account.image(&self.region, image)?.image_id;
            account.deregister_image(&self.region, id, delete_snapshots, self.now)
        })?;
        // Somebody may have forgotten one without asking.
        done.deleted.retain(|id| records.contains_key(id));
        done.left.retain(|id| records.contains_key(id));
        if !done.deleted.is_empty() {
            self.store.forget(&done.deleted)?;
        }
        Ok(done)
    }

    /// `DeleteSnapshot`, of several, in whatever regions they are: all of them or none.
    pub fn delete_snapshots(&self, ids: &[SnapshotId]) -> Result<Vec<Record>, Error> {
        let records = self.records()?;
        self.change_alone(|account| {
            ids.iter().try_for_each(|id| {
                let region = account.region_of(*id).to_owned();
                account.delete_snapshot(&region, *id, records.contains_key(id))
            })
        })?;
        Ok(self.store.forget(ids)?)
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

    /// `DeleteTags`.
    pub fn delete_tags(&self, resource: &str, keys: &[(String, Option<String>)]) -> Result<(), Error> {
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
        self.change_alone(|account| {
            let id = account.image(&self.region, image)?.image_id;
            change(account, id)
        })
    }

    fn on_resource(
        &self,
        resource: &str,
        mut change: impl FnMut(&mut Account, ResourceId) -> Result<(), ApiError>,
    ) -> Result<(), Error> {
        let snapshot: Option<SnapshotId> = resource.parse().ok();
        let Some(id) = snapshot else {
            return self.on_image(resource, |account, id| change(account, ResourceId::Image(id)));
        };
        if !self.records()?.contains_key(&id) {
            let region = self.region.clone();
            return Err(ApiError::NoSnapshot { snapshot: id, region, elsewhere: None }.into());
        }
        self.change_alone(|account| change(account, ResourceId::Snapshot(id)))
    }
}

#[cfg(test)]
mod tests;
