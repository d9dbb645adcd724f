"""Reports as HTML: one file each, without a script, a font or a request to anywhere.

The rule: what is shown is in the record; what the record lacks is left out or said to be missing. Text gets into a page
by `dwcp_migrate.pages.markup` alone, which escapes it.

Modules:
    charts: pictures as inline SVG
    course_facts: series that a migration's record holds
    fleet_page: report of a fleet
    migration_page: report of one migration
    migration_tables: tables of that report
"""
