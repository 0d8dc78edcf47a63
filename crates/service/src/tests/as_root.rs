//! What commands of root do, for tests that are about what comes of it.

use crate::{Actor, Admin, Error, MachineChange, Rescue, RoomChange, Service, SettingsChange};
use initcfg::PowerVerb;
use model::{Machine, MachineName, Room, RoomName, Settings};

fn root(service: &Service) -> Admin {
    service.admin(&Actor::command(0)).expect("root may do everything")
}

impl Service {
    pub(crate) async fn set_machine(
        &self,
        name: MachineName,
        change: MachineChange,
    ) -> Result<Machine, Error> {
        root(self).set_machine(name, change).await
    }

    pub(crate) async fn add_machine(
        &self,
        name: MachineName,
        of_it: MachineChange,
    ) -> Result<Machine, Error> {
        root(self).add_machine(name, of_it).await
    }

    pub(crate) async fn remove_machine(&self, name: MachineName) -> Result<Machine, Error> {
        root(self).remove_machine(name).await
    }

    pub(crate) async fn order(
        &self,
        name: &MachineName,
        verb: PowerVerb,
    ) -> Result<crate::PowerState, Error> {
        root(self).order(name, verb).await
    }

    pub(crate) async fn want_rescue(&self, name: &MachineName) -> Result<Rescue, Error> {
        root(self).want_rescue(name).await
    }

    pub(crate) async fn forget_rescue(&self, name: &MachineName) -> Result<(), Error> {
        root(self).forget_rescue(name).await
    }

    pub(crate) async fn set_room(&self, name: RoomName, change: RoomChange) -> Result<Room, Error> {
        root(self).set_room(name, change).await
    }

    pub(crate) async fn remove_room(&self, name: RoomName) -> Result<(), Error> {
        root(self).remove_room(name).await
    }

    pub(crate) async fn set_site_settings(
        &self,
        change: SettingsChange,
    ) -> Result<Settings, Error> {
        root(self).set_site_settings(change).await
    }
}
