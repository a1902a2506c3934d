"""What people read: pictures, the report of a scan, weights judged (`Judgement`), the page of the demonstration (`report.demo`)."""

from .judgement import Judgement
from .scan_report import ScanReportd, scan_report

__all__ = ["Judgement", "ScanReportd", "scan_report"]
