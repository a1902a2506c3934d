"""What people read: pictures, the report of a scan, the page of the demonstration (`report.demo`), that of a comparison."""

from .following import FollowUp
from .ledger import Ledger
from .scan_report import ScanReportd, lesion_table, numbered_lesions, scan_report
from .session import SessionResults

__all__ = ["FollowUp", "Ledger", "ScanReportd", "SessionResults", "lesion_table", "numbered_lesions", "scan_report"]
