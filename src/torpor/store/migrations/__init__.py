"""The steps from any earlier form of the metadata database to the present one."""
