//! What a file keeps besides its bytes when another takes its place: owner, group, permissions, access control list
//! and extended attributes.

use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{Gid, Uid, XattrFlags, fchown, fsetxattr, getxattr, listxattr};

use super::target::TAG;

/// Permissions beyond the file's user and group, and what of all of them a file keeps.
const OTHERS: u32 = 0o007;
const KEPT: u32 = 0o1777;
/// The longest value of an attribute, and the longest list of their names, that Linux has.
const LONGEST: usize = 64 << 10;
const ACCESS_LIST: &str = "system.posix_acl_access";

/// Gives the file at `new`, which is about to replace the one at `old`, what that one has besides its bytes, durably.
/// What this process may not give is left out, and nobody may read or write the new file who may not the old one.
/// Says whether both are there.
pub(super) fn carry_attributes(old: &Path, new: &Path) -> io::Result<bool> {
    let (meta, file) = match (fs::symlink_metadata(old), File::open(new)) {
        (Ok(meta), Ok(file)) if meta.is_file() => (meta, file),
        (Err(error), _) | (_, Err(error)) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error);
        }
        _ => return Ok(false),
    };
    let has_group = carry_owner(&meta, &file)?;
    let has_list = carry_named(old, &file);
    let mode = meta.mode() & KEPT;
    // The group's permissions are those of another group now, or were the most that a list could give.
    let mode = match has_group && has_list {
        true => mode,
        false => mode & !0o070 | mode & ((mode & OTHERS) << 3),
    };
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()?;
    Ok(true)
}

/// Gives a file its owner and its group. Says whether it has the group.
fn carry_owner(meta: &Metadata, file: &File) -> io::Result<bool> {
    let now = file.metadata()?;
    let (owner, group) = (Uid::from_raw(meta.uid()), Gid::from_raw(meta.gid()));
    if (now.uid(), now.gid()) == (meta.uid(), meta.gid())
        || fchown(file, Some(owner), Some(group)).is_ok()
    {
        return Ok(true);
    }
    Ok(now.gid() == meta.gid() || fchown(file, None, Some(group)).is_ok())
}

/// Gives a file the extended attributes of a user's making, and the access control list. Says whether it has that,
/// if there is one.
fn carry_named(old: &Path, file: &File) -> bool {
    let mut names = vec![0; LONGEST];
    let Ok(length) = listxattr(old, &mut names[..]) else { return true };
    let names = String::from_utf8_lossy(names.get(..length).unwrap_or_default()).into_owned();
    let mut value = vec![0; LONGEST];
    let mut carry = |name: &str| {
        let length = getxattr(old, name, &mut value[..]).unwrap_or(usize::MAX);
        let value = value.get(..length);
        value.is_some_and(|value| fsetxattr(file, name, value, XattrFlags::empty()).is_ok())
    };
    let mut has_list = true;
    for name in names.split('\0') {
        if name == ACCESS_LIST {
            has_list = carry(name);
        } else if name.starts_with("user.") && name != TAG {
            // A file system that keeps none of them had none to list.
            carry(name);
        }
    }
    has_list
}
